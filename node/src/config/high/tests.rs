//! How settings come together.

use super::*;
use crate::config::shown;
use clap::{Args, Command, FromArgMatches};

fn resolve(arguments: &[&str]) -> Result<Config, ConfigError> {
    let command = UpArgs::augment_args(Command::new("up").no_binary_name(true).args_override_self(true));
    let matches = command
        .try_get_matches_from(arguments)
        .expect("arguments that clap takes");
    let low = UpArgs::from_arg_matches(&matches).expect("arguments that clap takes");
    let machine = Machine {
        home: Some("/home/a".into()),
        cpus: 4,
    };
    Config::resolve(low, &Sources::of(&matches), &machine)
}

fn file(name: &str, text: &str) -> String {
    let path = std::env::temp_dir().join(format!("cluster-config-{name}-{}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn defaults_need_nothing() {
    let config = resolve(&[]).unwrap();
    assert_eq!(config.models.value[0].name, "smollm2-135m");
    assert_eq!(config.http.value.to_string(), "127.0.0.1:8000");
    assert_eq!(
        config.data_dir.value,
        PathBuf::from("/home/a/.local/share/cluster")
    );
    assert_eq!(
        (config.threads.value, config.threads.origin),
        (4, Origin::Default)
    );
    assert_eq!(config.auth.value, Auth::Keys);
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let path = file(
        "order",
        "tp = 2\nthreads = 3\nno_auth = true\nkv_cache = \"int8\"\n",
    );
    let config = resolve(&["--config", &path, "--threads", "8"]).unwrap();
    assert_eq!((config.threads.value, config.threads.origin), (8, Origin::Flag));
    assert_eq!((config.tp.value, config.tp.origin), (2, Origin::File));
    assert_eq!(
        (config.kv_cache.value, config.kv_cache.origin),
        (KvCache::Int8, Origin::File)
    );
    assert_eq!(
        (config.auth.value, config.auth.origin),
        (Auth::Open, Origin::File)
    );
    assert_eq!(config.http.origin, Origin::Default);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn an_open_node_on_the_network_is_refused() {
    let error = resolve(&["--no-auth", "--http", "0.0.0.0:8000"]).unwrap_err();
    assert!(matches!(error, ConfigError::OpenToNetwork(_)));
    assert!(resolve(&["--no-auth", "--http", "[::1]:0"]).is_ok());
}

#[test]
fn a_flag_can_also_say_no_to_what_the_file_says() {
    let path = file("open", "no_auth = true\n");
    for (arguments, expected) in [
        (vec![], (Auth::Open, Origin::File)),
        (vec!["--no-auth=false"], (Auth::Keys, Origin::Flag)),
        (vec!["--no-auth"], (Auth::Open, Origin::Flag)),
        (vec!["--no-auth=off", "--no-auth=yes"], (Auth::Open, Origin::Flag)),
    ] {
        let config = resolve(&[vec!["--config", &path], arguments].concat()).unwrap();
        assert_eq!((config.auth.value, config.auth.origin), expected);
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert_eq!(resolve(&["--tp", "0"]), Err(ConfigError::Zero("tp")));
    assert!(matches!(
        resolve(&["--cpu-level", "foo"]),
        Err(ConfigError::CpuLevel(_))
    ));
    assert_eq!(
        resolve(&["--threads", "1025"]),
        Err(ConfigError::TooManyThreads(1025))
    );
    assert_eq!(
        resolve(&["--tp", "3", "--threads", "2"]),
        Err(ConfigError::FewerThreadsThanRanks { tp: 3, threads: 2 })
    );
    assert!(matches!(
        resolve(&["--model", "a.gguf", "--model", "b/a.gguf"]),
        Err(ConfigError::TwiceNamed(_))
    ));
    assert!(matches!(
        resolve(&["--config", "/nowhere.toml"]),
        Err(ConfigError::File { .. })
    ));
}

#[test]
fn a_file_that_is_not_there_is_named_with_where_it_was_looked_for() {
    let here = std::env::current_dir().unwrap();
    let refused = resolve(&["--config", "nowhere.toml"]).unwrap_err().to_string();
    let place = here.join("nowhere.toml");
    assert!(refused.contains(place.to_str().unwrap()), "{refused}");
    let model = crate::store::error::StoreError::NoFile("nowhere.gguf".into()).to_string();
    let place = here.join("nowhere.gguf");
    assert!(model.contains(place.to_str().unwrap()), "{model}");
}

#[test]
fn every_setting_has_the_variable_that_its_errors_name() {
    let command = UpArgs::augment_args(Command::new("up"));
    for argument in command.get_arguments() {
        let variable = format!("CLUSTER_{}", argument.get_id().as_str().to_uppercase());
        assert_eq!(argument.get_env().unwrap(), variable.as_str());
    }
}

#[test]
fn no_setting_is_left_out_of_what_is_printed() {
    let shown = resolve(&[]).unwrap().shown();
    let command = UpArgs::augment_args(Command::new("up"));
    for id in command.get_arguments().map(|argument| argument.get_id().as_str()) {
        let is_shown = shown.iter().any(|setting| setting.name == id);
        assert!(is_shown || id == "config", "{id} is missing");
    }
    for argument in command.get_arguments() {
        assert!(
            !argument.is_hide_set(),
            "{} is printed and not explained",
            argument.get_id()
        );
    }
}

#[test]
fn every_setting_is_printed_with_its_origin() {
    let shown = resolve(&["--tp", "2"]).unwrap().shown();
    let json = shown::json(&shown);
    assert_eq!(
        json["tp"],
        serde_json::json!({"value": "2", "origin": "command line"})
    );
    assert_eq!(json["http"]["origin"], "default");
    let lines: Vec<String> = shown.iter().map(Shown::line).collect();
    assert!(
        lines.contains(&"tp                          2  (command line)".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("store") && line.ends_with("(default)"))
    );
}
