//! The command: its words, its exit statuses, the files that it writes.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use baton::seal::KeyRing;

fn baton(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_baton")).args(words).output().expect("baton starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn shipped(name: &str) -> String {
    format!("{}/config/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A path that nothing stands at, for one test.
fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("baton-cli-{}-{name}", std::process::id()));
    drop(std::fs::remove_file(&path));
    path
}

const WORDS: [&str; 18] = [
    "run",
    "check",
    "status",
    "flows",
    "counters",
    "mirror",
    "events",
    "ports",
    "pools",
    "rebalance",
    "switchover",
    "maintenance",
    "promote",
    "witness",
    "keygen",
    "keys",
    "man",
    "completions",
];

#[test]
fn help_names_every_word() {
    let help = baton(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for word in WORDS {
        assert!(stdout(&help).contains(word), "{word}");
        assert_eq!(baton(&[word, "--help"]).status.code(), Some(0), "{word}");
    }
}

#[test]
fn wrong_words_are_told_and_end_with_status_2() {
    for words in [&[][..], &["juggle"], &["status", "--yaml"], &["run"], &["keygen"], &["completions", "dos"]]
    {
        let output = baton(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn a_good_file_is_summed_up() {
    let output = baton(&["check", "--config", &shipped("active.toml")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("is good: baton-a (node 1)"), "{}", stdout(&output));
    assert!(
        stdout(&output).contains("www 10.1.0.100:80/tcp -> web, full-nat, mirror: checkpoint, hold"),
        "{}",
        stdout(&output)
    );
    assert!(stderr(&output).contains("warning: key file"), "it is not shipped: {}", stderr(&output));
}

#[test]
fn a_command_that_cannot_run_or_could_be_anyones_is_warned_of() {
    let (file, program) = (scratch("notify.toml"), scratch("notify"));
    let text = std::fs::read_to_string(shipped("active.toml")).expect("it is shipped");
    let key = format!("[failover]\nnotify = [\"{}\"]", program.display());
    std::fs::write(&file, text.replace("[failover]", &key)).expect("it is written");
    let warned = || {
        let output = baton(&["check", "--config", file.to_str().expect("text")]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output)
    };
    let named = format!("warning: the command of failover.notify, {}: ", program.display());
    assert!(warned().contains(&(named.clone() + "No such file")), "{}", warned());
    std::fs::write(&program, "#!/bin/sh\n").expect("it is written");
    for (mode, why) in [(0o600, "it is not executable"), (0o777, "others than its owner can write to it")] {
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).expect("it is ours");
        assert!(warned().contains(&(named.clone() + why)), "{}", warned());
    }
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    assert!(!warned().contains("failover.notify"), "{}", warned());
    for path in [file, program] {
        std::fs::remove_file(path).expect("it is there");
    }
}

#[test]
fn a_broken_file_is_told_with_all_its_errors_and_status_2() {
    let path = scratch("broken.toml");
    let text = std::fs::read_to_string(shipped("active.toml")).expect("it is shipped");
    let text = text.replace("priority = 200", "priority = 2000").replace("node = 1\n", "nodes = 1\n");
    std::fs::write(&path, text).expect("it is written");
    for word in ["check", "run"] {
        let output = baton(&[word, "--config", path.to_str().expect("text")]);
        assert_eq!(output.status.code(), Some(2), "{word}");
        let told = stderr(&output);
        assert!(told.contains("3 errors") && output.stdout.is_empty(), "{told}");
        assert!(
            told.contains(":7: appliance.nodes = 1: ") && told.contains("did you mean \"node\"?"),
            "{told}"
        );
        assert!(told.contains("failover.priority = 2000: expected a whole number from 1 to 254"), "{told}");
    }
    std::fs::remove_file(&path).expect("it is there");
    let absent = baton(&["check", "--config", path.to_str().expect("text")]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(stderr(&absent).contains("No such file"), "{}", stderr(&absent));
}

#[cfg(not(feature = "dpdk"))]
#[test]
fn without_dpdk_nothing_runs_and_that_is_said() {
    let output = baton(&["run", "--config", &shipped("active.toml")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("built without DPDK"), "{}", stderr(&output));
}

#[test]
fn a_key_is_good_secret_and_never_overwritten() {
    let path = scratch("mirror.key");
    let file = path.to_str().expect("text");
    assert_eq!(baton(&["keygen", file]).status.code(), Some(0));
    let text = std::fs::read_to_string(&path).expect("it was written");
    let ring = KeyRing::parse(&text).expect("it holds keys");
    assert!(ring.keys().len() == 1 && ring.hashes().name() != ring.first().name());
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = baton(&["keygen", file]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("exists"), "{}", stderr(&again));
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), text, "it is as it was");
    std::fs::remove_file(&path).expect("it is there");
}

#[test]
fn a_key_file_is_changed_step_by_step_and_a_broken_one_or_one_that_others_can_read_not_at_all() {
    let path = scratch("changed.key");
    let file = path.to_str().expect("text");
    assert_eq!(baton(&["keygen", file]).status.code(), Some(0));
    let names = |words: &[&str]| -> Vec<String> {
        let output = baton(words);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
            .lines()
            .map(|line| line.split_whitespace().next().expect("a name").to_owned())
            .collect()
    };
    let first = names(&["keys", "show", file]);
    let (old, hashes) = (&first[0], &first[1]);
    let added = names(&["keys", "add", file]);
    assert_eq!((&added[0], added.len(), &added[2]), (old, 3, hashes));
    assert_eq!(names(&["keys", "first", file, &added[1]]), [added[1].clone(), old.clone(), hashes.clone()]);
    let again = baton(&["keys", "first", file, &added[1]]);
    assert!(again.status.success() && stderr(&again).contains("the first one already"), "{}", stderr(&again));
    for (words, why) in [
        (&["keys", "add", file][..], "it holds two keys already"),
        (&["keys", "first", file, "00000000"], "it holds no key 00000000"),
        (&["keys", "first", file], "NAME"),
    ] {
        let refused = baton(words);
        assert_eq!(refused.status.code(), Some(2), "{words:?}");
        assert!(stderr(&refused).contains(why), "{}", stderr(&refused));
    }
    assert_eq!(names(&["keys", "drop", file]), [added[1].clone(), hashes.clone()]);
    let text = std::fs::read_to_string(&path).expect("it is there");
    assert!(
        !text.contains(old) && std::fs::metadata(&path).expect("it").permissions().mode() & 0o777 == 0o600
    );
    let again = baton(&["keys", "drop", file]);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("it holds one key only"), "{}", stderr(&again));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("its mode can be set");
    let open = baton(&["keys", "add", file]);
    assert_eq!(open.status.code(), Some(2));
    assert!(stderr(&open).contains("its mode is 644"), "{}", stderr(&open));
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), text, "it is as it was");
    std::fs::remove_file(&path).expect("it is there");
}

#[test]
fn a_nodes_own_key_is_secret_and_its_public_key_can_be_shown_again() {
    let path = scratch("node.key");
    let file = path.to_str().expect("text");
    let made = baton(&["keys", "generate", file]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let public = stdout(&made);
    assert_eq!(public.trim().len(), 64);
    assert_eq!(stdout(&baton(&["keys", "public", file])), public);
    assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(baton(&["keys", "generate", file]).status.code(), Some(1), "it is left alone");
    let no_group = baton(&["keys", "show", file]);
    assert!(
        no_group.status.code() == Some(2) && stderr(&no_group).contains("line 1"),
        "{}",
        stderr(&no_group)
    );
    std::fs::remove_file(&path).expect("it is there");
}

#[test]
fn two_keys_differ() {
    let paths = [scratch("one.key"), scratch("two.key")];
    let texts = paths.each_ref().map(|path| {
        assert_eq!(baton(&["keygen", path.to_str().expect("text")]).status.code(), Some(0));
        let text = std::fs::read_to_string(path).expect("it was written");
        std::fs::remove_file(path).expect("it is there");
        text
    });
    assert_ne!(texts[0], texts[1]);
}

#[test]
fn man_pages_and_completions_name_every_word() {
    let man = stdout(&baton(&["man"]));
    assert!(man.contains(".TH baton 1"), "{man}");
    let bash = stdout(&baton(&["completions", "bash"]));
    for word in WORDS {
        assert!(man.contains(word) && bash.contains(word), "{word}");
    }
    let directory = scratch("man");
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let written = baton(&["man", "--directory", directory.to_str().expect("text")]);
    assert_eq!(written.status.code(), Some(0), "{}", stderr(&written));
    for word in WORDS {
        assert!(directory.join(format!("baton-{word}.1")).exists(), "{word}");
    }
    std::fs::remove_dir_all(&directory).expect("it is there");
}
