//! The registry as several processes use it. A dead process is one whose file nobody holds.

use std::os::unix::fs::symlink;
use std::sync::Barrier;
use std::thread;

use allocation_counter::measure;
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use super::*;

proptest! {
    #[test]
    fn an_entry_costs_no_more_than_its_size_whatever_is_in_it(
        junk in "\\PC{0,200}", changes in proptest::collection::vec((any::<Index>(), any::<char>()), 0..4), nested in 0..5_000usize,
    ) {
        let mut almost: Vec<char> = Entry::new(&card(1), Place::here()).to_json().unwrap().chars().collect();
        for (at, character) in changes {
            let at = at.index(almost.len());
            almost[at] = character;
        }
        for text in [junk, almost.into_iter().collect(), "[".repeat(nested), "{\"a\":".repeat(nested)] {
            let cost = measure(|| drop(Entry::from_json(&text).and_then(|entry| entry.card(&Place::here()))));
            prop_assert!(cost.bytes_max <= 64 * 1024 + 64 * text.len() as u64, "{cost:?} for {text}");
        }
    }
}

fn card(mesh: u8) -> Card {
    Card {
        peer: PeerId::random(),
        name: "amber-heron".to_owned(),
        mesh: format!("mesh-{mesh}"),
        mesh_id: MeshId([mesh; 16]),
        addresses: vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap(), "/ip4/10.0.0.7/tcp/4001".parse().unwrap()],
        node: false,
    }
}

fn path_of(dir: &Path, card: &Card) -> PathBuf {
    dir.join(format!("{}-{}.json", card.mesh_id, card.peer))
}

/// An entry without its writer.
fn write_dead(dir: &Path, card: &Card, place: Place) -> PathBuf {
    let path = path_of(dir, card);
    fs::write(&path, Entry::new(card, place).to_json().unwrap()).unwrap();
    path
}

fn neighbours(dir: &Path, mesh: u8) -> Vec<PeerId> {
    scan(dir, MeshId([mesh; 16]), PeerId::random()).into_iter().map(|card| card.peer).collect()
}

#[test]
fn neighbours_of_one_mesh_see_each_other_while_they_live() {
    let dir = TempDir::new().unwrap();
    let (a, b, other) = (card(1), card(1), card(2));
    let here = Registration::write(dir.path(), a.clone()).unwrap();
    let _there = Registration::write(dir.path(), b.clone()).unwrap();
    let _other = Registration::write(dir.path(), other.clone()).unwrap();

    let [seen] = scan(dir.path(), a.mesh_id, a.peer).try_into().unwrap();
    assert_eq!((seen.peer, &seen.name, &seen.addresses), (b.peer, &b.name, &b.addresses));
    assert_eq!(neighbours(dir.path(), 2), [other.peer]);

    let path = here.path.clone();
    drop(here);
    assert!(!path.exists());
    assert_eq!(neighbours(dir.path(), 1), [b.peer]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something is left beside the entries");
}

#[test]
fn a_dead_process_is_removed() {
    let dir = TempDir::new().unwrap();
    let path = write_dead(dir.path(), &card(1), Place::here());
    assert!(neighbours(dir.path(), 1).is_empty());
    assert!(!path.exists());
}

#[test]
fn a_dead_process_s_place_is_taken_by_its_next_start() {
    let dir = TempDir::new().unwrap();
    let card = card(1);
    write_dead(dir.path(), &card, Place::here());
    let living = Registration::write(dir.path(), card.clone()).unwrap();
    assert_eq!(neighbours(dir.path(), 1), [card.peer]);
    let error = Registration::write(dir.path(), card).unwrap_err();
    assert!(matches!(error, RegistryError::Held { .. }), "{error}");
    drop(living);
}

#[test]
fn new_addresses_replace_the_old_ones() {
    let dir = TempDir::new().unwrap();
    let card = card(1);
    let mut registration = Registration::write(dir.path(), card.clone()).unwrap();
    for port in 1..20 {
        let addresses: Vec<Multiaddr> = vec![format!("/ip4/10.0.0.7/tcp/{port}").parse().unwrap()];
        registration.update(addresses.clone()).unwrap();
        let [seen] = scan(dir.path(), card.mesh_id, PeerId::random()).try_into().unwrap();
        assert_eq!(seen.addresses, addresses);
    }
    drop(registration);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// The moment between the lock of the old file and the name of the new one: who looks then must not take it for dead.
#[test]
fn readers_neither_remove_nor_miss_a_living_entry() {
    let dir = TempDir::new().unwrap();
    let card = card(1);
    let mut registration = Registration::write(dir.path(), card.clone()).unwrap();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..500 {
                    assert_eq!(neighbours(dir.path(), 1), [card.peer]);
                }
            });
        }
        start.wait();
        for port in 1..200 {
            registration.update(vec![format!("/ip4/10.0.0.7/tcp/{port}").parse().unwrap()]).unwrap();
        }
    });
    assert_eq!(neighbours(dir.path(), 1), [card.peer]);
    assert!(is_at(&registration.file, &registration.path).unwrap());
}

#[test]
fn another_host_s_entries_are_neither_used_nor_removed() {
    let dir = TempDir::new().unwrap();
    let path = write_dead(dir.path(), &card(1), Place::elsewhere("another boot", ""));
    assert!(neighbours(dir.path(), 1).is_empty());
    assert!(path.exists());
}

#[test]
fn loopback_counts_only_within_one_namespace() {
    let here = Place::elsewhere("boot", "net:[1]");
    let seen = |network| {
        let entry = Entry::new(&card(1), Place::elsewhere("boot", network));
        entry.card(&here).unwrap().unwrap().addresses
    };
    assert_eq!(seen("net:[1]"), card(1).addresses);
    assert_eq!(seen("net:[2]"), card(1).addresses[1..]);
}

#[test]
fn what_is_no_entry_is_passed_over_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let good = card(1);
    let _living = Registration::write(dir.path(), good.clone()).unwrap();
    let bad_peer = fs::read_to_string(path_of(dir.path(), &good)).unwrap().replace(&good.peer.to_string(), "nobody");
    let garbage: [&[u8]; 6] = [b"", b"{}", b"[1, 2", b"\xff\xfe\x00", &[b'['; 100_000], bad_peer.as_bytes()];
    for (number, bytes) in garbage.into_iter().enumerate() {
        fs::write(dir.path().join(format!("{number}.json")), bytes).unwrap();
    }
    fs::write(dir.path().join("notes.txt"), "hello").unwrap();
    fs::create_dir(dir.path().join("directory.json")).unwrap();
    symlink("/dev/zero", dir.path().join("endless.json")).unwrap();
    symlink("nowhere", dir.path().join("dangling.json")).unwrap();
    assert_eq!(neighbours(dir.path(), 1), [good.peer]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 11);
}

#[test]
fn a_verb_joins_the_mesh_of_the_running_node() {
    let dir = TempDir::new().unwrap();
    assert_eq!(running_node_mesh(dir.path()), None);
    let _verb = Registration::write(dir.path(), card(1)).unwrap();
    write_dead(dir.path(), &Card { node: true, ..card(2) }, Place::here());
    assert_eq!(running_node_mesh(dir.path()), None);
    let _node = Registration::write(dir.path(), Card { node: true, ..card(3) }).unwrap();
    assert_eq!(running_node_mesh(dir.path()).as_deref(), Some("mesh-3"));
}

#[test]
fn the_directory_is_made_for_its_owner_only() {
    let temp = TempDir::new().unwrap();
    let uid = fs::metadata(temp.path()).unwrap().uid();
    for (runtime, name) in [(Some(temp.path().to_owned()), "pombo".to_owned()), (None, format!("pombo-{uid}"))] {
        let path = locate(runtime.clone(), temp.path()).unwrap();
        assert_eq!(path, temp.path().join(name));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(locate(runtime, temp.path()).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2, "something is left beside the directories");
}

#[test]
fn a_runtime_directory_that_is_of_no_use_is_passed_over() {
    let temp = TempDir::new().unwrap();
    for runtime in ["", "relative", "/nowhere/at/all", "/proc"] {
        let path = locate(Some(runtime.into()), temp.path()).unwrap();
        assert!(path.starts_with(temp.path()), "{runtime}: {}", path.display());
    }
}

#[test]
fn what_is_not_a_directory_of_ours_is_refused() {
    let temp = TempDir::new().unwrap();
    let uid = fs::metadata(temp.path()).unwrap().uid();
    fs::create_dir(temp.path().join("target")).unwrap();
    symlink("target", temp.path().join("link")).unwrap();
    symlink("nowhere", temp.path().join("dangling")).unwrap();
    fs::write(temp.path().join("file"), "").unwrap();
    let someone_else = uid + 1;
    for (name, uid) in [("link", uid), ("dangling", uid), ("file", uid), ("target", someone_else)] {
        let error = open(&temp.path().join(name), uid).unwrap_err();
        assert!(matches!(error, RegistryError::NotOurs { .. }), "{name}: {error}");
    }
}

#[test]
fn a_registry_that_is_not_there_has_no_neighbours() {
    let dir = TempDir::new().unwrap();
    assert!(neighbours(&dir.path().join("nowhere"), 1).is_empty());
}
