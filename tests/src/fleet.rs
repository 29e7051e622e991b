//! Several nodes that are one cluster.

use crate::binary::run_binary_to_end;
use crate::node::{Launched, Turn, take_turn};
use crate::{Client, MODEL, Node, NodeOptions, TempFolder, Weather, cluster_binary};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

/// What a node serves itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    TheModel,
    /// The same, by a name that leads to no path that other nodes could have too.
    TheModelByName,
    /// What the cluster serves; at first its store, which is its own, is empty.
    AsTheOthers,
    /// It asks others.
    Nothing,
}

/// Ports stay the same over restarts, as on real hosts.
struct Seat {
    /// Of the next start.
    binary: PathBuf,
    http: String,
    quic: String,
    data: PathBuf,
    holds: Holds,
    /// Given at every start.
    settings: Vec<String>,
    weather: Option<Weather>,
    node: Option<Node>,
}

impl Seat {
    fn options(&self) -> NodeOptions {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let options = NodeOptions::new()
            .binary(&self.binary)
            .with(&["--http", &self.http, "--quic", &self.quic])
            .with(&settings)
            .data(&self.data);
        let options = match &self.weather {
            Some(weather) => options.under(weather),
            None => options,
        };
        match self.holds {
            Holds::TheModel => options,
            Holds::TheModelByName => options.with(&["--model", MODEL]),
            Holds::AsTheOthers => {
                let store = self.data.with_extension("store");
                let store = store.to_str().expect("a readable path");
                options.sharing().with(&["--store", store])
            }
            Holds::Nothing => options.with(&["--model", "none"]),
        }
    }
}

/// Does anything come between the nodes?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Exposure {
    Sheltered,
    /// Each is under a [`Weather`].
    Exposed,
}

/// Nodes by their order of joining; the first one has founded the cluster. All are killed on drop.
pub struct Fleet {
    seats: Vec<Seat>,
    /// Of nodes that are added.
    binary: PathBuf,
    exposure: Exposure,
    key: String,
    folder: TempFolder,
    _turn: Turn,
}

impl Fleet {
    /// A cluster of one that holds the model.
    pub fn found() -> Fleet {
        Fleet::found_with(Holds::TheModel)
    }

    pub fn found_with(holds: Holds) -> Fleet {
        Fleet::found_as(holds, &[])
    }

    /// With settings that hold for all of its starts.
    pub fn found_as(holds: Holds, settings: &[&str]) -> Fleet {
        Fleet::found_by(cluster_binary(), holds, settings)
    }

    /// By another build of the program, which the nodes that are added later run as well.
    pub fn found_by(binary: &Path, holds: Holds, settings: &[&str]) -> Fleet {
        let mut fleet = Fleet::empty(binary, Exposure::Sheltered);
        fleet.found_first(holds, settings);
        fleet
    }

    fn empty(binary: &Path, exposure: Exposure) -> Fleet {
        let turn = take_turn();
        Fleet {
            seats: Vec::new(),
            binary: binary.to_owned(),
            exposure,
            key: String::new(),
            folder: TempFolder::new(),
            _turn: turn,
        }
    }

    fn found_first(&mut self, holds: Holds, settings: &[&str]) {
        self.add(holds, settings, &[]);
        self.key = self.node(0).key().expect("the founder makes a key").to_owned();
    }

    /// Three nodes that hold nothing, all of which vote, each under a weather of its own.
    pub fn of_three_exposed() -> Fleet {
        let mut fleet = Fleet::empty(cluster_binary(), Exposure::Exposed);
        fleet.found_first(Holds::Nothing, &[]);
        fleet.join(Holds::Nothing);
        fleet.join(Holds::Nothing);
        fleet.until_voters(3);
        fleet
    }

    /// As [`Fleet::of_three`], each under a weather of its own.
    pub fn of_three_serving_exposed() -> Fleet {
        let mut fleet = Fleet::empty(cluster_binary(), Exposure::Exposed);
        fleet.found_first(Holds::TheModel, &[]);
        fleet.join(Holds::Nothing);
        fleet.join(Holds::Nothing);
        fleet.until_voters(3);
        fleet
    }

    /// A founder that holds the model and two more nodes that hold nothing, all of which vote.
    pub fn of_three() -> Fleet {
        let mut fleet = Fleet::found();
        fleet.join(Holds::Nothing);
        fleet.join(Holds::Nothing);
        fleet.until_voters(3);
        fleet
    }

    /// One more node, let in by a token of the first one that runs. Gives its place.
    pub fn join(&mut self, holds: Holds) -> usize {
        self.join_as(holds, &[])
    }

    /// With settings that hold for all of its starts.
    pub fn join_as(&mut self, holds: Holds, settings: &[&str]) -> usize {
        let token = self.token();
        self.add(holds, settings, &["--join", &token])
    }

    /// One more node that holds nothing, let in by this token.
    pub fn join_by(&mut self, token: &str) -> usize {
        self.add(Holds::Nothing, &[], &["--join", token])
    }

    fn add(&mut self, holds: Holds, settings: &[&str], arguments: &[&str]) -> usize {
        let place = self.seats.len();
        self.seats.push(self.seat(place, holds, settings));
        self.start_with(place, arguments);
        place
    }

    /// Some more at once, each let in by a token of its own. Gives their places.
    pub fn join_at_once(&mut self, holds: Holds, count: usize) -> Vec<usize> {
        let places: Vec<usize> = (self.seats.len()..).take(count).collect();
        let mut launched = Vec::new();
        for place in &places {
            let token = self.token();
            self.seats.push(self.seat(*place, holds, &[]));
            let options = self.seats[*place].options().with(&["--join", &token]);
            launched.push(options.launch());
        }
        for (place, launched) in places.iter().zip(launched) {
            self.seats[*place].node = Some(launched.ready(None));
        }
        places
    }

    fn seat(&self, place: usize, holds: Holds, settings: &[&str]) -> Seat {
        let weather = match self.exposure {
            Exposure::Sheltered => None,
            Exposure::Exposed => Some(Weather::new(self.folder.path(), place)),
        };
        Seat {
            binary: self.binary.clone(),
            http: free_address(),
            quic: free_address(),
            data: self.folder.path().join(format!("node-{place}")),
            holds,
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            weather,
            node: None,
        }
    }

    /// From its next start on this node runs that build of the program, and so do the commands on its host.
    pub fn install(&mut self, place: usize, binary: &Path) {
        self.seats[place].binary = binary.to_owned();
    }

    /// Starts a node that does not run, where it was before.
    pub fn start(&mut self, place: usize) {
        self.start_with(place, &[]);
    }

    /// The same with more arguments.
    pub fn start_with(&mut self, place: usize, arguments: &[&str]) {
        let options = self.seats[place].options().with(arguments);
        self.seats[place].node = Some(options.launch().ready(None));
    }

    /// All that do not run, side by side: none may come up before the others are there.
    pub fn start_all(&mut self) {
        let idle = (0..self.seats.len()).filter(|place| !self.runs(*place));
        self.start_in(idle.collect::<Vec<usize>>());
    }

    /// The same of these alone.
    pub fn start_in(&mut self, places: impl IntoIterator<Item = usize>) {
        let launch = |place: usize| (place, self.seats[place].options().launch());
        let launched: Vec<(usize, Launched)> = places.into_iter().map(launch).collect();
        for (place, launched) in launched {
            self.seats[place].node = Some(launched.ready(None));
        }
    }

    /// `cluster up` of a node that is expected to be refused.
    pub fn up_of(&self, place: usize, arguments: &[&str]) -> Output {
        let data = self.seats[place].data.to_str().expect("a readable path");
        let common = [
            "up",
            "--http",
            "127.0.0.1:0",
            "--model",
            "none",
            "--data-dir",
            data,
        ];
        run_binary_to_end(&self.seats[place].binary, &[&common, arguments].concat())
    }

    pub fn node(&self, place: usize) -> &Node {
        self.seats[place].node.as_ref().expect("this node runs")
    }

    /// Takes a node out of the fleet's hands; [`Fleet::start`] brings a new one in its place.
    pub fn take(&mut self, place: usize) -> Node {
        self.seats[place].node.take().expect("this node runs")
    }

    /// `kill -9`.
    pub fn kill(&mut self, place: usize) {
        drop(self.take(place));
    }

    /// Of an exposed fleet.
    pub fn weather(&self, place: usize) -> &Weather {
        let weather = self.seats[place].weather.as_ref();
        weather.expect("this fleet is exposed")
    }

    /// On which a node listens to the others, over all of its runs.
    pub fn quic_port(&self, place: usize) -> u16 {
        let (_, port) = self.seats[place].quic.rsplit_once(':').expect("host:port");
        port.parse().expect("a port")
    }

    pub fn runs(&self, place: usize) -> bool {
        self.seats[place].node.is_some()
    }

    /// Of a node that holds what the others do.
    pub fn own_store(&self, place: usize) -> PathBuf {
        self.seats[place].data.with_extension("store")
    }

    pub fn data_folder(&self, place: usize) -> &Path {
        &self.seats[place].data
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// A client of this node that holds the cluster's first key.
    pub fn client(&self, place: usize) -> Client {
        Client::new(self.node(place).address(), Some(self.key.clone()))
    }

    /// A client of a node that may not run.
    pub fn client_of(&self, place: usize) -> Client {
        Client::new(&self.seats[place].http, Some(self.key.clone()))
    }

    /// Runs `cluster WORDS --data-dir …` on the host of a node.
    pub fn command(&self, place: usize, words: &[&str]) -> Output {
        let data = self.seats[place].data.to_str().expect("a readable path");
        run_binary_to_end(
            &self.seats[place].binary,
            &[words, &["--data-dir", data]].concat(),
        )
    }

    /// What a command prints that must succeed.
    pub fn says(&self, place: usize, words: &[&str]) -> String {
        let output = self.command(place, words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cluster {words:?}: {errors}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    pub fn json(&self, place: usize, words: &[&str]) -> Value {
        let text = self.says(place, &[words, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?} says {text}: {error}"))
    }

    pub fn token(&self) -> String {
        self.says(self.any(), &["token", "create"])
    }

    /// The first node that runs.
    pub fn any(&self) -> usize {
        let running = self.seats.iter().position(|seat| seat.node.is_some());
        running.expect("some node runs")
    }

    /// The place of the node that leads, as a node sees it that runs.
    pub fn leader(&self) -> usize {
        let leader = self.json(self.any(), &["status"])["raft"]["leader"].clone();
        let place = self.seats.iter().position(|seat| {
            let number = seat.node.as_ref().map(Node::number);
            number.is_some() && number == leader.as_u64()
        });
        place.expect("a node leads")
    }

    pub fn voters(&self) -> BTreeSet<u64> {
        let status = self.json(self.any(), &["status"]);
        let voters = status["raft"]["voters"].as_array().expect("a list").clone();
        voters.iter().filter_map(Value::as_u64).collect()
    }

    /// Until that node sees this many replicas, all of them ready.
    pub fn until_ready(&self, place: usize, count: usize) {
        until("the replicas are ready", Duration::from_secs(30), || {
            let status = self.json(place, &["status"]);
            let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
            replicas.len() == count && replicas.iter().all(|replica| replica["state"] == "ready")
        });
    }

    pub fn until_voters(&self, count: usize) {
        until("nodes vote", Duration::from_secs(30), || {
            self.voters().len() == count
        });
    }
}

/// Asks again until it holds. Gives how long that took.
///
/// # Panics
/// When it takes longer than `wait_max`.
pub fn until(what: &str, wait_max: Duration, holds: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < wait_max, "{what}: not within {wait_max:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// Free for TCP and UDP when it was looked for.
fn free_address() -> String {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = tcp.local_addr().expect("an address");
        if UdpSocket::bind(address).is_ok() {
            return address.to_string();
        }
    }
    panic!("no port is free for both");
}
