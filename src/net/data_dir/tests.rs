//! The data directory as several processes use it. File locks belong to open files, so threads contend as processes do.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_stands_in_a_file_is_read_or_refused_and_left_alone(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), start in 0..3usize,
    ) {
        let starts: [&[u8]; 3] = [&[], &[8, 1, 18, 64], b"18446744073709551615"];
        let bytes = [starts[start], &bytes].concat();
        let (_temp, dir) = temp();
        dir.mesh("home").unwrap();
        drop(dir.claim(Some("a")).unwrap());
        for path in ["mesh/home/secret", "nodes/a/incarnation", "nodes/a/key"] {
            let path = dir.root.join(path);
            let before = fs::read(&path).unwrap();
            fs::write(&path, &bytes).unwrap();
            if dir.mesh("home").is_err() || dir.claim(Some("a")).is_err() {
                prop_assert_eq!(&fs::read(&path).unwrap(), &bytes);
            }
            fs::write(&path, before).unwrap();
        }
    }
}

fn temp() -> (TempDir, DataDir) {
    let temp = TempDir::new().unwrap();
    let dir = DataDir::open(Some(&temp.path().join("data"))).unwrap();
    (temp, dir)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// What 20 threads get that do the same at the same moment.
fn at_once<T: Send>(work: impl Fn() -> T + Sync) -> Vec<T> {
    let start = Barrier::new(20);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    work()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn whoever_comes_first_makes_the_secret_and_all_read_the_same() {
    let (_temp, dir) = temp();
    let all = at_once(|| dir.mesh("home").unwrap());
    assert!(all.iter().all(|mesh| *mesh == all[0]));
    assert_eq!(dir.mesh("home").unwrap(), all[0]);
    assert_ne!(dir.mesh("other").unwrap().id, all[0].id);
    let left: Vec<_> = fs::read_dir(dir.root.join("mesh/home")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn only_the_owner_may_read_what_is_here() {
    let (_temp, dir) = temp();
    dir.mesh("home").unwrap();
    let slot = dir.claim(Some("a")).unwrap();
    for path in ["", "mesh", "mesh/home", "nodes", "nodes/a"] {
        assert_eq!(mode(&dir.root.join(path)), 0o700, "{path}");
    }
    for path in ["mesh/home/secret", "nodes/a/key", "nodes/a/incarnation"] {
        assert_eq!(mode(&dir.root.join(path)), 0o600, "{path}");
    }
    drop(slot);
}

#[test]
fn the_open_mesh_touches_no_disk() {
    let (_temp, dir) = temp();
    assert!(dir.mesh("open").unwrap().is_open());
    assert!(!dir.root.join("mesh").exists());
}

#[test]
fn a_name_cannot_leave_the_directory() {
    let (_temp, dir) = temp();
    for name in ["", ".", "..", "../x", "a/b", "a b", "ä", &"x".repeat(33)] {
        assert!(matches!(dir.mesh(name), Err(DataDirError::BadName { .. })), "{name}");
        assert!(matches!(dir.claim(Some(name)), Err(DataDirError::BadName { .. })), "{name}");
        assert!(matches!(Slot::ephemeral(Some(name)), Err(DataDirError::BadName { .. })), "{name}");
    }
}

#[test]
fn a_secret_that_is_none_is_refused_with_its_path() {
    let (_temp, dir) = temp();
    dir.mesh("home").unwrap();
    let path = dir.root.join("mesh/home/secret");
    for text in [String::new(), "00".to_owned(), "g".repeat(64), "0".repeat(1_000_000)] {
        fs::write(&path, text).unwrap();
        let error = dir.mesh("home").unwrap_err();
        assert!(matches!(error, DataDirError::BadSecret { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn a_node_keeps_its_key_and_its_incarnation_rises() {
    let (_temp, dir) = temp();
    let (name, peer, mut last) = {
        let slot = dir.claim(None).unwrap();
        (slot.name.clone(), slot.keypair.public().to_peer_id(), slot.incarnation)
    };
    for _ in 0..5 {
        let slot = dir.claim(None).unwrap();
        assert_eq!((&slot.name, slot.keypair.public().to_peer_id()), (&name, peer));
        assert!(slot.incarnation > last);
        last = slot.incarnation;
    }
    // A clock that went back.
    fs::write(dir.root.join("nodes").join(&name).join("incarnation"), (u64::MAX - 5).to_string()).unwrap();
    assert_eq!(dir.claim(Some(&name)).unwrap().incarnation, u64::MAX - 4);
}

#[test]
fn an_incarnation_that_cannot_rise_is_refused() {
    let (_temp, dir) = temp();
    drop(dir.claim(Some("a")).unwrap());
    for text in ["", "x", "-1", &u64::MAX.to_string()] {
        fs::write(dir.root.join("nodes/a/incarnation"), text).unwrap();
        assert!(matches!(dir.claim(Some("a")), Err(DataDirError::BadIncarnation { .. })), "{text}");
    }
}

#[test]
fn nodes_at_once_get_places_of_their_own() {
    let (_temp, dir) = temp();
    let slots = at_once(|| dir.claim(None).unwrap());
    let names: HashSet<_> = slots.iter().map(|slot| slot.name.as_str()).collect();
    let peers: HashSet<_> = slots.iter().map(|slot| slot.keypair.public().to_peer_id()).collect();
    assert_eq!((names.len(), peers.len()), (20, 20));
}

#[test]
fn a_node_that_runs_alone_is_the_oldest() {
    let (_temp, dir) = temp();
    let first = dir.claim(None).unwrap().name.clone();
    let held: Vec<_> = (0..5).map(|_| dir.claim(None).unwrap()).collect();
    drop(held);
    assert_eq!(dir.claim(None).unwrap().name, first);
}

#[test]
fn a_held_name_is_refused_with_its_holder() {
    let (_temp, dir) = temp();
    let held = dir.claim(Some("a")).unwrap();
    let error = dir.claim(Some("a")).unwrap_err();
    assert!(matches!(error, DataDirError::Held { by: Some(ref by), .. } if by.pid == std::process::id()), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(held);
    dir.claim(Some("a")).unwrap();
}

#[test]
fn a_key_file_is_made_kept_and_held() {
    let (temp, _dir) = temp();
    let path = temp.path().join("node.key");
    let slot = Slot::load_key(&path).unwrap();
    let (peer, last, name) = (slot.keypair.public().to_peer_id(), slot.incarnation, slot.name.clone());
    assert_eq!(mode(&path), 0o600);
    let error = Slot::load_key(&path).unwrap_err();
    assert!(matches!(error, DataDirError::Held { by: Some(_), .. }), "{error}");
    drop(slot);
    let slot = Slot::load_key(&path).unwrap();
    assert_eq!((slot.keypair.public().to_peer_id(), &slot.name), (peer, &name));
    assert!(slot.incarnation > last);
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_remedy() {
    let (temp, _dir) = temp();
    let path = temp.path().join("node.key");
    drop(Slot::load_key(&path).unwrap());
    for mode in [0o640, 0o604, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Slot::load_key(&path).unwrap_err();
        assert!(matches!(error, DataDirError::KeyExposed { mode: found, .. } if found == mode), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}

#[test]
fn a_key_that_is_none_is_refused_and_left_alone() {
    let (temp, _dir) = temp();
    let path = temp.path().join("node.key");
    drop(Slot::load_key(&path).unwrap());
    let sound = fs::read(&path).unwrap();
    for (bytes, what) in [
        (&b""[..], "is empty"),
        (b"what", "is something else"),
        (&sound[..sound.len() - 1], "is a damaged key"),
        (b"\x08\x00\x12\x01a", "is an RSA key"),
        (b"\x08\x02\x12\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "is a secp256k1 key"),
        (b"\x08\x03\x12\x01a", "is an ECDSA key"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----", "in PEM"),
        (&[0; 1_000_000], "is something else"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = Slot::load_key(&path).unwrap_err();
        assert!(matches!(error, DataDirError::BadKey { .. }), "{error}");
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    fs::write(&path, sound).unwrap();
    Slot::load_key(&path).unwrap();
}

#[test]
fn a_key_is_held_whatever_way_leads_to_it() {
    let (temp, dir) = temp();
    let path = dir.root.join("nodes/a/key");
    let by_name = dir.claim(Some("a")).unwrap();
    let link = temp.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for way in [&path, &link] {
        let error = Slot::load_key(way).unwrap_err();
        assert!(matches!(error, DataDirError::Held { by: Some(_), .. }), "{error}");
    }
    drop(by_name);
    let by_file = Slot::load_key(&link).unwrap();
    assert!(matches!(dir.claim(Some("a")).unwrap_err(), DataDirError::Held { by: Some(_), .. }));
    let other = dir.claim(None).unwrap();
    assert_ne!(other.keypair.public(), by_file.keypair.public());
}

#[test]
fn what_a_process_left_that_died_goes_with_the_next_start() {
    let (_temp, dir) = temp();
    dir.mesh("home").unwrap();
    drop(dir.claim(Some("a")).unwrap());
    let left = ["mesh/home/secret", "nodes/a/key", "nodes/a/incarnation"].map(|path| {
        let path = dir.root.join(format!("{path}.0123456789abcdef.tmp"));
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        fs::File::create(&path).unwrap().set_modified(old).unwrap();
        path
    });
    dir.mesh("home").unwrap();
    drop(dir.claim(Some("a")).unwrap());
    assert!(left.iter().all(|path| !path.exists()), "{left:?}");
}

#[test]
fn an_ephemeral_node_is_new_each_time() {
    let (a, b) = (Slot::ephemeral(None).unwrap(), Slot::ephemeral(Some("b")).unwrap());
    assert_ne!(a.keypair.public(), b.keypair.public());
    assert!(check_name("node", &a.name).is_ok());
    assert_eq!(b.name, "b");
    assert!(a.incarnation > 0);
}
