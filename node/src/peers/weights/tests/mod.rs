//! Files from node to node: whole, in parts, along a chain, and past nodes that lie, fall silent or die.

mod support;

use super::{FetchError, Fetched, Which};
use crate::store::chunk_set::ChunkSet;
use crate::store::error::StoreError;
use crate::transport::tests::support::Cluster;
use kernels::WeightFormat;
use proto::NodeId;
use shard::testing::GgufWriter;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{CHUNK, Host, Manner, Model, acquaint};

fn is_whole(fetched: &Result<Fetched, String>) -> bool {
    match fetched {
        Ok(Fetched::Whole(_)) => true,
        Ok(Fetched::Parts(_)) => false,
        Err(reason) => panic!("{reason}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_file_comes_verified_and_is_given_on() {
    let (cluster, model) = (Cluster::new(), Model::some());
    let source = Host::new(&cluster, 1).hold(&model);
    let (second, third) = (Host::new(&cluster, 2), Host::new(&cluster, 3));
    acquaint(&[&source, &second, &third]);
    let mut told = Vec::new();
    let wanted = model.wanted(Which::All);
    let mut progress = |bytes, wanted_bytes| told.push((bytes, wanted_bytes));
    let fetched = second.fetcher().fetch(&wanted, &[NodeId(1)], &mut progress).await;
    assert!(is_whole(&fetched.map_err(|error| error.to_string())));
    second.assert_holds(&model);
    assert_eq!(source.shelf.given_bytes(), model.len());
    assert!(told.is_sorted() && told.last() == Some(&(model.len(), model.len())));
    assert!(is_whole(&third.fetch(&model, &[&second]).await));
    third.assert_holds(&model);
    assert_eq!(
        source.shelf.given_bytes(),
        model.len(),
        "the first was not asked again"
    );
    assert!(is_whole(&third.fetch(&model, &[]).await), "it is here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_gets_what_it_needs_and_no_more() {
    let cluster = Cluster::new();
    let mut writer = GgufWriter::new(3);
    writer.string("general.architecture", "llama");
    // A head of more than one chunk.
    writer.strings("tokenizer.ggml.tokens", &["some token"; 2500]);
    let tensors = ["token_embd", "blk.0.a", "blk.1.a", "blk.2.a", "output"];
    for name in tensors.map(|name| format!("{name}.weight")) {
        let count = CHUNK as usize;
        writer.tensor(&name, &[32, count / 32], WeightFormat::F32, &vec![0.5; count]);
    }
    let model = Model::of(writer.finish());
    let source = Host::new(&cluster, 1).hold(&model);
    let (stage, next) = (Host::new(&cluster, 2), Host::new(&cluster, 3));
    acquaint(&[&source, &stage, &next]);
    let wanted = model.wanted(Which::All);
    let fetch = async |host: &Host, from: &[NodeId]| {
        let fetcher = host.fetcher();
        let begun = fetcher.begin_stage(&wanted, &(1..2), from).await;
        let begun = begun.map_err(|error| error.to_string()).unwrap();
        let came = match &begun.fetched {
            Fetched::Parts(partial) => partial.here(),
            Fetched::Whole(_) => panic!("the whole file was fetched"),
        };
        let fetched = fetcher.fetch(&begun.wanted, from, &mut |_, _| {}).await;
        let fetched = fetched.map_err(|error| error.to_string()).unwrap();
        (begun.layout, came, fetched)
    };
    let (layout, at_first, fetched) = fetch(&stage, &[NodeId(1)]).await;
    let Fetched::Parts(partial) = fetched else {
        panic!("the whole file was fetched");
    };
    assert_eq!(
        at_first.iter().collect::<Vec<u32>>(),
        [0, 1, 2, 3],
        "no layers yet"
    );
    let ranges = layout.ranges_of_stage(&(1..2));
    // The head's three chunks were known to be enough when there were four.
    let mut needed = partial.chunks_of(&ranges);
    needed.insert(3);
    assert!(needed.len() < model.manifest.chunks() / 2, "{needed:?}");
    assert_eq!(partial.here(), needed);
    let given = source.shelf.given_bytes();
    assert_eq!(given, u64::from(needed.len()) * u64::from(CHUNK), "each once");
    for range in ranges {
        let bytes = &model.bytes[range.start as usize..range.end as usize];
        assert_eq!(partial.read(range).unwrap().as_deref(), Some(bytes));
    }
    // Who has parts gives them; the rest is elsewhere.
    fetch(&next, &[NodeId(1), NodeId(2)]).await;
    assert_eq!(
        (source.shelf.given_bytes(), stage.shelf.given_bytes()),
        (given, given)
    );
    assert!(is_whole(&next.fetch(&model, &[&source, &stage]).await));
    next.assert_holds(&model);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_chunk_is_fetched_from_another_and_its_giver_not_asked_again() {
    let (cluster, model) = (Cluster::new(), Model::some());
    let rotten = Host::new(&cluster, 1).hold(&model);
    let sound = Host::new(&cluster, 2).hold(&model);
    let third = Host::new(&cluster, 3);
    acquaint(&[&rotten, &sound, &third]);
    let file = File::options().write(true).open(rotten.blob(&model)).unwrap();
    for chunk in 0..model.manifest.chunks() {
        let place = model.manifest.place(chunk);
        let at = place.start as usize + 5;
        file.write_all_at(&[!model.bytes[at]], at as u64).unwrap();
    }
    let alone = third.fetch(&model, &[&rotten]).await.err().expect("all is wrong");
    assert!(
        alone.contains("node 1: chunk") && alone.contains("wrong digest"),
        "{alone}"
    );
    assert!(is_whole(&third.fetch(&model, &[&rotten, &sound]).await));
    third.assert_holds(&model);
    assert_eq!(sound.shelf.given_bytes(), model.len(), "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_has_given_is_not_fetched_again() {
    let (cluster, model) = (Cluster::new(), Model::some());
    let dying = Host::new(&cluster, 1).hold(&model);
    let other = Host::new(&cluster, 2).hold(&model);
    let third = Host::new(&cluster, 3);
    acquaint(&[&dying, &other, &third]);
    let (peers, shelf) = (dying.peers.clone(), dying.shelf.clone());
    tokio::spawn(async move {
        while shelf.given_bytes() < 20 * u64::from(CHUNK) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        peers.close().await;
    });
    let mut had = 0;
    let wanted = model.wanted(Which::All);
    let mut progress = |bytes, _| had = bytes;
    let fetched = third.fetcher().fetch(&wanted, &[NodeId(1)], &mut progress).await;
    let error = fetched.err().expect("nobody is left");
    assert!(matches!(error, FetchError::NobodyLeft { .. }), "{error}");
    assert!(error.to_string().contains("node 1"), "{error}");
    assert!(had > 0 && had < model.len(), "it died on the way: {had}");
    assert!(is_whole(&third.fetch(&model, &[&dying, &other]).await));
    third.assert_holds(&model);
    assert_eq!(other.shelf.given_bytes(), model.len() - had);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_or_falls_silent_is_replaced_on_the_way() {
    let (cluster, model) = (Cluster::new(), Model::some());
    let dying = Host::new(&cluster, 1).hold(&model);
    let silent = Host::with(&cluster, 2, Manner::Silent).hold(&model);
    let sound = Host::new(&cluster, 3).hold(&model);
    let fourth = Host::new(&cluster, 4);
    acquaint(&[&dying, &silent, &sound, &fourth]);
    let (peers, shelf) = (dying.peers.clone(), dying.shelf.clone());
    tokio::spawn(async move {
        while shelf.given_bytes() < 5 * u64::from(CHUNK) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        peers.close().await;
    });
    assert!(is_whole(&fourth.fetch(&model, &[&dying, &silent, &sound]).await));
    fourth.assert_holds(&model);
    assert!(sound.shelf.given_bytes() <= model.len(), "no chunk twice");
    assert!(dying.shelf.given_bytes() < model.len() / 2, "it died early");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_what_has_come_is_used_later() {
    let (cluster, model) = (Cluster::new(), Model::some());
    let source = Host::new(&cluster, 1).hold(&model);
    let second = Host::new(&cluster, 2);
    acquaint(&[&source, &second]);
    let wanted = model.wanted(Which::Head(1));
    let head = second
        .fetcher()
        .fetch(&wanted, &[NodeId(1)], &mut |_, _| {})
        .await;
    let Ok(Fetched::Parts(partial)) = head else {
        panic!("a part was wanted");
    };
    partial.fill_after(Some(9));
    let wanted = model.wanted(Which::All);
    let fetched = second
        .fetcher()
        .fetch(&wanted, &[NodeId(1)], &mut |_, _| {})
        .await;
    let error = fetched.err().expect("the disk is full");
    assert!(
        matches!(error, FetchError::Store(StoreError::DiskFull(_))),
        "{error}"
    );
    assert_eq!(partial.here().len(), 10, "what had come is there");
    partial.fill_after(None);
    let given = source.shelf.given_bytes();
    assert!(is_whole(&second.fetch(&model, &[&source]).await));
    second.assert_holds(&model);
    let rest = source.shelf.given_bytes() - given;
    assert_eq!(rest, model.len() - 10 * u64::from(CHUNK));
}

/// All begin at once; the holder's number is before, amid or after theirs.
async fn chain(holder: u64) {
    let (cluster, model) = (Cluster::new(), Model::some());
    let source = Host::new(&cluster, holder).hold(&model);
    let hosts = [2, 4, 6].map(|id| Host::new(&cluster, id));
    let [a, b, c] = &hosts;
    acquaint(&[&source, a, b, c]);
    let (a_is_done, overlap) = (AtomicBool::new(false), AtomicBool::new(false));
    let wanted = model.wanted(Which::All);
    let mut looks_at_a = |bytes: u64, wanted_bytes: u64| {
        let begun = bytes > 0 && bytes < wanted_bytes;
        if begun && !a_is_done.load(Ordering::SeqCst) {
            overlap.store(true, Ordering::SeqCst);
        }
    };
    let (b_fetcher, others) = (b.fetcher(), [source.id, a.id, c.id]);
    let others_of_c = [&source, a, b];
    let first = async {
        let fetched = a.fetch(&model, &[&source, b, c]).await;
        a_is_done.store(true, Ordering::SeqCst);
        fetched
    };
    let (of_a, of_b, of_c) = tokio::join!(
        first,
        b_fetcher.fetch(&wanted, &others, &mut looks_at_a),
        c.fetch(&model, &others_of_c),
    );
    assert!(is_whole(&of_a) && is_whole(&of_c));
    assert!(is_whole(&of_b.map_err(|error| error.to_string())));
    hosts.iter().for_each(|host| host.assert_holds(&model));
    let given = [&source, a, b, c].map(|host| host.shelf.given_bytes());
    println!("given by the holder, and along the chain: {given:?}");
    assert!(
        given[0] < model.len() * 5 / 4,
        "the holder sends it about once: {given:?}"
    );
    assert_eq!(
        given.iter().sum::<u64>(),
        3 * model.len(),
        "each chunk once for each: {given:?}"
    );
    assert!(
        overlap.load(Ordering::SeqCst),
        "chunks go on before the file is whole"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_fetch_at_once_form_a_chain() {
    for holder in [1, 5, 7] {
        chain(holder).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_holds_and_a_manifest_of_another_file_are_told() {
    let (cluster, model) = (Cluster::new(), Model::some());
    let source = Host::new(&cluster, 1).hold(&model);
    let (empty, third) = (Host::new(&cluster, 2), Host::new(&cluster, 3));
    acquaint(&[&source, &empty, &third]);
    let nobody = third.fetch(&model, &[&empty]).await.err().expect("nobody has it");
    assert!(nobody.contains("no other node"), "{nobody}");
    let mut wanted = model.wanted(Which::All);
    wanted.manifest = Some([7; 32]);
    let other = third.fetcher().fetch(&wanted, &[NodeId(1)], &mut |_, _| {}).await;
    let other = other.err().expect("it is not what was agreed on").to_string();
    assert!(other.contains("node 1: its manifest"), "{other}");
    assert_eq!(source.shelf.given_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_is_made_when_it_is_first_asked_for() {
    let (cluster, model) = (Cluster::new(), Model::some());
    let (source, second) = (Host::new(&cluster, 1), Host::new(&cluster, 2));
    acquaint(&[&source, &second]);
    fs::write(source.blob(&model), &model.bytes).unwrap();
    let mut wanted = model.wanted(Which::All);
    wanted.manifest = None;
    let fetched = second
        .fetcher()
        .fetch(&wanted, &[NodeId(1)], &mut |_, _| {})
        .await;
    assert!(is_whole(&fetched.map_err(|error| error.to_string())));
    second.assert_holds(&model);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_share_a_store_fetch_a_file_once() {
    let (cluster, model) = (Cluster::new(), Model::some());
    let source = Host::new(&cluster, 1).hold(&model);
    let one = Host::new(&cluster, 2);
    let other = Host::beside(&cluster, 3, &one);
    acquaint(&[&source, &one, &other]);
    let sources = [&source];
    let (of_one, of_other) = tokio::join!(one.fetch(&model, &sources), other.fetch(&model, &sources));
    assert!(is_whole(&of_one) && is_whole(&of_other));
    one.assert_holds(&model);
    assert_eq!(source.shelf.given_bytes(), model.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_is_given_up_leaves_what_has_come() {
    let (cluster, model) = (Cluster::new(), Model::some());
    let source = Host::new(&cluster, 1).hold(&model);
    let second = Host::new(&cluster, 2);
    acquaint(&[&source, &second]);
    let (sender, enough) = tokio::sync::oneshot::channel();
    let mut sender = Some(sender);
    let mut progress = |bytes: u64, _| {
        if bytes > 20 * u64::from(CHUNK)
            && let Some(sender) = sender.take()
        {
            let _ = sender.send(());
        }
    };
    let (fetcher, wanted) = (second.fetcher(), model.wanted(Which::All));
    tokio::select! {
        biased;
        _ = enough => {}
        _ = fetcher.fetch(&wanted, &[NodeId(1)], &mut progress) => panic!("it was to be given up"),
    }
    assert!(is_whole(&second.fetch(&model, &[&source]).await));
    second.assert_holds(&model);
    let given = source.shelf.given_bytes();
    assert!(
        given < model.len() + 10 * u64::from(CHUNK),
        "{given} of {}",
        model.len()
    );
    assert_eq!(ChunkSet::all(201).len(), model.manifest.chunks());
}

/// A node that has come just now asks how fast its links are; others are still waiting for what it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_hold_up_weights_waits_for_them() {
    let cluster = Cluster::new();
    let host = Host::new(&cluster, 1);
    let (patience, moment) = (Duration::from_secs(60), Duration::from_millis(400));
    let waited = async |since: std::time::Instant, longest| {
        host.shelf.until_quiet(longest).await;
        since.elapsed()
    };
    let now = std::time::Instant::now;
    assert!(
        waited(now(), patience).await < patience / 2,
        "nobody was given anything"
    );
    let given_at = now();
    host.shelf.note_given(1);
    let until_quiet = waited(given_at, patience).await;
    assert!(
        until_quiet >= moment && until_quiet < patience / 2,
        "{until_quiet:?}"
    );
    let _sending = host.shelf.giving().acquire_owned().await;
    assert!(waited(now(), moment).await >= moment, "a chunk is on its way");
}
