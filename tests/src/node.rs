//! A running node.

use crate::{Client, MODEL, Weather, cluster_binary, model_path, store};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Generous: unoptimised binaries on a busy machine. Nothing waits this long when all is well.
const READY_TIMEOUT: Duration = Duration::from_secs(180);

/// One node at a time: its compute threads spin, and two nodes on few cores would starve each other.
static TURN: Mutex<()> = Mutex::new(());
pub(crate) type Turn = MutexGuard<'static, ()>;

pub(crate) fn take_turn() -> Turn {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where no model is named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Serves {
    TheModel,
    WhatTheClusterServes,
}

/// How a node is to be started.
pub struct NodeOptions {
    binary: PathBuf,
    arguments: Vec<String>,
    serves: Serves,
    data: Option<PathBuf>,
    environment: Vec<(&'static str, PathBuf)>,
}

impl NodeOptions {
    /// The test model on a free port of the loopback interface, with an empty data folder.
    pub fn new() -> NodeOptions {
        NodeOptions {
            binary: cluster_binary().to_owned(),
            arguments: Vec::new(),
            serves: Serves::TheModel,
            data: None,
            environment: Vec::new(),
        }
    }

    /// Another build of the program.
    pub(crate) fn binary(mut self, binary: &Path) -> NodeOptions {
        self.binary = binary.to_owned();
        self
    }

    /// More arguments for `cluster up`.
    pub fn with(mut self, arguments: &[&str]) -> NodeOptions {
        self.arguments
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// As a node that is told nothing.
    pub fn sharing(mut self) -> NodeOptions {
        self.serves = Serves::WhatTheClusterServes;
        self
    }

    /// Under a weather of its own.
    pub(crate) fn under(mut self, weather: &Weather) -> NodeOptions {
        self.environment = weather.environment().to_vec();
        self
    }

    /// The state of an earlier node.
    pub fn data(mut self, folder: &Path) -> NodeOptions {
        self.data = Some(folder.to_owned());
        self
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// When it ends or does not come up in time; the message holds its log.
    pub fn start(self) -> Node {
        let turn = take_turn();
        self.launch().ready(Some(turn))
    }

    /// Starts it and does not wait.
    pub(crate) fn launch(self) -> Launched {
        let folder = TempFolder::new();
        let data = self.data.unwrap_or_else(|| folder.path().join("data"));
        let mut command = Command::new(&self.binary);
        command.args(["up", "--json", "--http", "127.0.0.1:0"]);
        let is_given = |name: &str| self.arguments.iter().any(|argument| argument == name);
        if !is_given("--model") && self.serves == Serves::TheModel {
            command
                .arg("--model")
                .arg(format!("{MODEL}={}", model_path().display()));
        }
        if !is_given("--store") {
            command.arg("--store").arg(store());
        }
        command.arg("--data-dir").arg(&data).args(&self.arguments);
        command
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the cluster binary runs");
        Launched {
            log: Log::of(child.stderr.take().expect("stderr is a pipe")),
            child,
            folder,
            data,
        }
    }
}

/// A node on its way up.
pub(crate) struct Launched {
    child: Child,
    log: Log,
    folder: TempFolder,
    data: PathBuf,
}

impl Launched {
    /// Waits until it serves. A node of a fleet has no turn of its own.
    ///
    /// # Panics
    /// When it ends or does not come up in time; the message holds its log.
    pub(crate) fn ready(mut self, turn: Option<Turn>) -> Node {
        match first_line(self.child.stdout.take().expect("stdout is a pipe")) {
            Some(line) => Node::new(self.child, self.log, self.folder, self.data, &line, turn),
            None => give_up(self.child, &self.log),
        }
    }
}

impl Default for NodeOptions {
    fn default() -> NodeOptions {
        NodeOptions::new()
    }
}

/// A node that serves; killed on drop.
pub struct Node {
    child: Child,
    log: Log,
    data: PathBuf,
    address: String,
    key: Option<String>,
    number: u64,
    _folder: TempFolder,
    _turn: Option<Turn>,
}

impl Node {
    fn new(
        child: Child,
        log: Log,
        folder: TempFolder,
        data: PathBuf,
        ready: &str,
        turn: Option<Turn>,
    ) -> Node {
        let ready: Value =
            serde_json::from_str(ready).unwrap_or_else(|error| panic!("ready line {ready:?}: {error}"));
        let address = ready["http"]
            .as_str()
            .unwrap_or_else(|| panic!("no http in {ready}"));
        let address = address
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        let key = ready["key"].as_str().map(str::to_owned);
        Node {
            child,
            log,
            data,
            address,
            key,
            number: ready["node"].as_u64().expect("a node has a number"),
            _folder: folder,
            _turn: turn,
        }
    }

    /// The test model with default options.
    pub fn start() -> Node {
        NodeOptions::new().start()
    }

    /// A client that holds the node's first key.
    pub fn client(&self) -> Client {
        Client::new(&self.address, self.key.clone())
    }

    pub fn client_with_key(&self, key: Option<&str>) -> Client {
        Client::new(&self.address, key.map(str::to_owned))
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The key that was shown at first start.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Its id in the cluster.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn data_folder(&self) -> &Path {
        &self.data
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The shard hosts of this node.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.process_id())
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Sends a signal, by the name `kill` knows.
    pub fn signal(&self, name: &str) {
        signal(self.process_id(), name);
    }

    /// Waits until the process has ended; `None` when it takes longer than `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the node ---\n{}", self.log());
        }
    }
}

/// Sends a signal, by the name `kill` knows, to a process.
pub fn signal(process_id: u32, name: &str) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(process_id.to_string())
        .status();
    assert!(status.expect("kill runs").success(), "kill -{name} {process_id}");
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("a /proc to look at");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id| parent_of(*id) == Some(parent)).collect()
}

fn parent_of(process_id: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
    // pid (name) state ppid …; the name may hold anything, also parentheses.
    status.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The first line of stdout, read in a thread of its own so that waiting has an end. The rest is read and dropped.
fn first_line(stdout: ChildStdout) -> Option<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        if let Some(Ok(line)) = lines.next() {
            let _ = sender.send(line);
        }
        lines.for_each(drop);
    });
    receiver.recv_timeout(READY_TIMEOUT).ok()
}

fn give_up(mut child: Child, log: &Log) -> ! {
    let _ = child.kill();
    let status = child.wait();
    panic!("the node did not come up ({status:?}):\n{}", log.text());
}

#[derive(Clone)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn of(stderr: impl Read + Send + 'static) -> Log {
        let log = Log(Arc::default());
        let writer = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = writer.0.lock().expect("nobody panics while logging");
                text.push_str(&line);
                text.push('\n');
            }
        });
        log
    }

    fn text(&self) -> String {
        self.0.lock().expect("nobody panics while logging").clone()
    }
}

/// A folder that goes away with its test.
pub struct TempFolder(PathBuf);

impl TempFolder {
    pub fn new() -> TempFolder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cluster-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        TempFolder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Default for TempFolder {
    fn default() -> TempFolder {
        TempFolder::new()
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
