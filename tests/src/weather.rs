//! What comes between real nodes: lost and late datagrams, and clocks that are wrong.

use crate::environment::{made_once, suites};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// As in `tests/shim/weather.c`.
const PORTS: usize = 4;
const CUT_AT: u64 = 8;
const HELD_AT: u64 = CUT_AT + 2 * PORTS as u64;
const LOST_COUNT_AT: u64 = HELD_AT + 2 * PORTS as u64;
const HELD_COUNT_AT: u64 = LOST_COUNT_AT + 8;
const FILE_BYTES: u64 = HELD_COUNT_AT + 8;

/// Of one node, over all of its runs. Works by a library that is loaded into the node, so nobody need be root.
pub struct Weather {
    file: File,
    path: PathBuf,
}

impl Weather {
    /// Fair at first.
    pub(crate) fn new(folder: &Path, place: usize) -> Weather {
        let path = folder.join(format!("weather-{place}"));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = file.expect("room for a small file");
        file.set_len(FILE_BYTES).expect("room for a small file");
        Weather { file, path }
    }

    /// For a node to be under it.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("LD_PRELOAD", library()),
            ("CLUSTER_TEST_WEATHER", self.path.clone()),
        ]
    }

    /// What this node sends to these ports is lost from now on; what it sends to others no longer is.
    pub fn cut(&self, ports: &[u16]) {
        self.write_ports(CUT_AT, ports);
    }

    /// What this node sends to these ports waits. What waited for others goes out, the newest first.
    pub fn hold(&self, ports: &[u16]) {
        self.write_ports(HELD_AT, ports);
    }

    /// The node's time of day is so much after everybody else's.
    pub fn set_clock_ahead(&self, secs: i64) {
        self.write(0, &secs.to_ne_bytes());
    }

    /// Nothing is lost or waits, and the clock is right.
    pub fn clear(&self) {
        self.cut(&[]);
        self.hold(&[]);
        self.set_clock_ahead(0);
    }

    /// How many datagrams were lost so far.
    pub fn lost_count(&self) -> u64 {
        self.read(LOST_COUNT_AT)
    }

    /// How many datagrams have waited so far.
    pub fn held_count(&self) -> u64 {
        self.read(HELD_COUNT_AT)
    }

    fn write_ports(&self, at: u64, ports: &[u16]) {
        let mut bytes = [0; 2 * PORTS];
        assert!(ports.len() <= PORTS, "{} ports at most", PORTS);
        for (place, port) in ports.iter().enumerate() {
            bytes[2 * place..][..2].copy_from_slice(&port.to_ne_bytes());
        }
        self.write(at, &bytes);
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.file
            .write_all_at(bytes, at)
            .expect("a small file can be written");
    }

    fn read(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file
            .read_exact_at(&mut bytes, at)
            .expect("a small file can be read");
        u64::from_ne_bytes(bytes)
    }
}

/// `tests/shim/weather.c`, compiled.
fn library() -> PathBuf {
    let source = suites("shim").join("weather.c");
    let text = fs::read(&source).expect("tests/shim/weather.c");
    let folder = made_once("weather", &text, |folder| {
        fs::create_dir_all(folder).expect("room for a folder");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"]);
        let status = compiler
            .arg(folder.join("weather.so"))
            .arg(&source)
            .args(["-ldl", "-lpthread"])
            .status();
        let status = status.expect("a C compiler, `cc`");
        assert!(status.success(), "tests/shim/weather.c does not compile");
    });
    folder.join("weather.so")
}
