use proptest::prelude::*;

use super::*;
use crate::{Protocol, Publish};

fn book() -> Book {
    Book::new("10.0.0.0/29".parse().unwrap())
}

fn grouped(name: &str) -> Policy {
    Policy {
        group: Some(name.to_owned()),
        ..Policy::default()
    }
}

fn publishing(host_port: u16) -> Policy {
    Policy {
        publish: vec![Publish {
            protocol: Protocol::Tcp,
            host_ip: None,
            host_port,
            guest_port: 80,
        }],
        ..Policy::default()
    }
}

#[test]
fn a_returned_slot_comes_last() {
    let mut book = book();
    while let Some(slot) = book.begin_making(5) {
        book.cleaned(slot);
    }
    let Taken::Ready(first) = book.take("a", &Policy::default()).unwrap() else {
        panic!("nothing ready")
    };
    book.give_back(first).unwrap();
    book.cleaned(first);
    let mut order = Vec::new();
    for _ in 0..5 {
        if let Taken::Ready(slot) = book.take("b", &Policy::default()).unwrap() {
            order.push(slot);
        }
    }
    assert_eq!(order.last(), Some(&first));
    assert!(matches!(
        book.take("c", &Policy::default()),
        Err(NetworkError::Exhausted { capacity: 5, .. })
    ));
}

#[test]
fn while_the_last_slot_is_cleaned_one_waits() {
    let mut book = book();
    for _ in 0..5 {
        assert!(matches!(
            book.take("a", &Policy::default()),
            Ok(Taken::Make(_))
        ));
    }
    book.give_back(Slot(3)).unwrap();
    assert_eq!(book.take("b", &Policy::default()).unwrap(), Taken::Wait);
    book.cleaned(Slot(3));
    assert_eq!(
        book.take("b", &Policy::default()).unwrap(),
        Taken::Ready(Slot(3))
    );
}

#[test]
fn a_port_has_one_owner_and_is_free_after_it() {
    let mut book = book();
    let Taken::Make(slot) = book.take("first", &publishing(80)).unwrap() else {
        panic!("not made")
    };
    let error = book.take("second", &publishing(80)).unwrap_err();
    assert!(
        error.to_string().contains("80/tcp is in use by first"),
        "{error}"
    );
    book.set_policy(slot, publishing(81)).unwrap();
    book.set_policy(slot, publishing(81)).unwrap();
    assert!(book.take("second", &publishing(80)).is_ok());
    assert!(book.take("third", &publishing(81)).is_err());
    book.give_back(slot).unwrap();
    assert!(book.take("third", &publishing(81)).is_ok());
}

#[test]
fn a_group_has_a_number_while_it_has_members() {
    let mut book = book();
    for _ in 0..2 {
        book.take("a", &grouped("blue")).unwrap();
    }
    let blue = book.group(&grouped("blue")).unwrap();
    book.take("b", &grouped("red")).unwrap();
    assert_ne!(book.group(&grouped("red")), Some(blue));
    book.set_policy(Slot(2), grouped("blue")).unwrap();
    book.give_back(Slot(2)).unwrap();
    assert_eq!(book.group(&grouped("blue")), Some(blue));
    book.give_back(Slot(3)).unwrap();
    assert_eq!(book.group(&grouped("blue")), None);
}

#[test]
fn what_was_held_is_in_use_again_once() {
    let mut book = book();
    let held = |slot| Held {
        owner: "a".into(),
        slot: Slot(slot),
        policy: publishing(80),
    };
    assert!(book.hold(&held(4)));
    assert!(!book.hold(&held(4)), "twice");
    assert!(!book.hold(&held(5)), "same port");
    assert!(!book.hold(&held(7)), "not of the pool");
    assert_eq!(book.in_use(), 1);
}

proptest! {
    #[test]
    fn no_slot_is_lost_or_given_twice(steps in prop::collection::vec((0_u8..5, 2_u32..8), 0..200)) {
        let mut book = book();
        let mut mine = BTreeSet::new();
        for (step, number) in steps {
            let slot = Slot(number);
            match step {
                0 => if let Ok(Taken::Ready(slot) | Taken::Make(slot)) = book.take("a", &grouped("g")) {
                    prop_assert!(mine.insert(slot));
                },
                1 => prop_assert_eq!(book.give_back(slot).is_ok(), mine.remove(&slot)),
                2 => book.cleaned(slot),
                3 => book.removed(slot),
                _ => { book.begin_making(3); }
            }
            let all = book.free.len() + book.ready.len() + book.cleaning.len() + book.used.len();
            prop_assert_eq!(all, 5);
            prop_assert_eq!(book.group(&grouped("g")).is_some(), !mine.is_empty());
        }
    }
}
