//! Clients that do one thing after another, each time on another node's host.

use serde_json::Value;
use sim::{Action, Answer, History, Invoked, Random};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;
use tests::run_to_end;

/// Tenants of these names come and go. Of each it is asked whether there is one.
const TENANTS: [&str; 3] = ["red", "green", "blue"];
const THERE: u64 = 1;
const PAUSE_MILLIS_MAX: u64 = 200;

pub struct Client {
    /// Of the nodes, by their places.
    pub folders: Vec<PathBuf>,
    pub history: History,
    pub known: Known,
    pub dice: Random,
    pub number: u64,
}

/// The keys that somebody has asked for. All have names of their own, so there is never reason for two of one name. Clones
/// are the same.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<Keys>>);

#[derive(Default)]
struct Keys {
    names: Vec<String>,
    /// By their ids.
    seen: BTreeMap<String, String>,
}

impl Known {
    fn add(&self, name: &str) {
        self.0
            .lock()
            .expect("nobody panicked")
            .names
            .push(name.to_owned());
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().expect("nobody panicked").names.clone()
    }

    /// # Panics
    /// When an id is known by another name.
    fn is_called(&self, id: &str, name: &str) {
        let mut keys = self.0.lock().expect("nobody panicked");
        let known = keys.seen.entry(id.to_owned()).or_insert(name.to_owned());
        assert_eq!(known, name, "the id {id} was given twice");
    }
}

impl Client {
    pub fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(self.dice.between(0, PAUSE_MILLIS_MAX)));
            let place = self.dice.between(0, self.folders.len() as u64 - 1) as usize;
            let tenant = TENANTS[self.dice.between(0, TENANTS.len() as u64 - 1) as usize];
            match self.dice.between(0, 9) {
                0 | 1 => self.change(place, tenant, Action::Fill(THERE), &["tenant", "add", tenant]),
                2 | 3 => self.change(place, tenant, Action::Empty, &["tenant", "rm", tenant]),
                4 | 5 => self.create_key(place),
                6 | 7 => self.look_at_keys(place),
                _ => self.look_at_tenants(place),
            }
        }
    }

    /// # Panics
    /// When the node does not answer.
    pub fn look_at_all(&mut self, place: usize) {
        assert!(self.keys(place).is_some(), "all faults have ended");
        self.look_at_keys(place);
        self.look_at_tenants(place);
    }

    fn says(&self, place: usize, words: &[&str]) -> Output {
        let folder = self.folders[place].to_str().expect("a readable path");
        run_to_end(&[words, &["--data-dir", folder]].concat())
    }

    fn json(&self, place: usize, words: &[&str]) -> Option<Value> {
        let output = self.says(place, &[words, &["--json"]].concat());
        let json = || serde_json::from_slice(&output.stdout).expect("JSON");
        output.status.success().then(json)
    }

    fn change(&self, place: usize, register: &str, action: Action, words: &[&str]) {
        let invoked = self.history.invoke(register, action);
        let output = self.says(place, words);
        self.note(invoked, &output);
    }

    fn note(&self, invoked: Invoked, output: &Output) {
        let errors = String::from_utf8_lossy(&output.stderr);
        let says = |words: &[&str]| words.iter().any(|word| errors.contains(word));
        if output.status.success() {
            self.history.heard(invoked, Answer::Done);
        } else if says(&["exists already", "there is no tenant"]) {
            self.history.heard(invoked, Answer::Refused);
        } else if says(&[
            "has no leader",
            "takes no part",
            "no node runs",
            "cannot be asked yet",
        ]) {
            self.history.did_not_happen(invoked, &errors);
        } else {
            let is_doubtful = says(&["is not known", "does not answer"]);
            assert!(is_doubtful, "an answer that nobody should get: {errors}");
        }
    }

    fn create_key(&mut self, place: usize) {
        let name = format!("key-{}-{:x}", self.number, self.dice.between(0, u64::MAX - 1));
        self.known.add(&name);
        let words = ["key", "create", "--name", &name];
        self.change(place, &name, Action::Fill(THERE), &words);
    }

    fn look_at_keys(&self, place: usize) {
        let names = self.known.names();
        let looks = self.begin_to_look(&names);
        self.end_to_look(looks, self.keys(place));
    }

    fn look_at_tenants(&self, place: usize) {
        let looks = self.begin_to_look(&TENANTS.map(str::to_owned));
        let tenants = self.json(place, &["tenant", "list"]);
        let names = tenants.map(|tenants| texts(&tenants["tenants"], "name"));
        self.end_to_look(looks, names);
    }

    /// The names of those there are. `None`: the node does not say.
    fn keys(&self, place: usize) -> Option<Vec<String>> {
        let listed = self.json(place, &["key", "list"])?;
        let named: Vec<&Value> = listed["keys"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|key| key["name"].is_string())
            .collect();
        let text = |key: &Value, field: &str| key[field].as_str().expect("a text").to_owned();
        let mut names: Vec<String> = named.iter().map(|key| text(key, "name")).collect();
        for key in named {
            self.known.is_called(&text(key, "id"), &text(key, "name"));
        }
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "a key was made twice: {names:?}");
        Some(names)
    }

    /// One list answers for all of them.
    fn begin_to_look(&self, names: &[String]) -> Vec<(String, Invoked)> {
        let look = |name: &String| (name.clone(), self.history.invoke(name, Action::Look));
        names.iter().map(look).collect()
    }

    fn end_to_look(&self, looks: Vec<(String, Invoked)>, seen: Option<Vec<String>>) {
        for (name, invoked) in looks {
            match &seen {
                Some(seen) => {
                    let value = seen.contains(&name).then_some(THERE);
                    self.history.heard(invoked, Answer::Seen(value));
                }
                None => self.history.did_not_happen(invoked, "nobody answered"),
            }
        }
    }
}

fn texts(list: &Value, field: &str) -> Vec<String> {
    let items = list.as_array().expect("a list").iter();
    items
        .map(|item| item[field].as_str().expect("a text").to_owned())
        .collect()
}
