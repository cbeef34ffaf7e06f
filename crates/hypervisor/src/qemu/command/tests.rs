//! Command lines for machines of every kind.

use super::*;

fn setup(start: Start, ram: RamMap) -> Setup {
    let file = |path: &str, format| DiskFile {
        path: path.into(),
        format,
    };
    Setup {
        name: "abc".into(),
        vcpus: 1,
        ram_bytes: 256 << 20,
        ram,
        start,
        root: "/images/a,b.erofs".into(),
        disk: vec![
            file("/i/disk-0", DiskFormat::Raw),
            file("/i/top", DiskFormat::Qcow2),
        ],
        console: "/i/a,b/console.log".into(),
        app: "/i/app.log".into(),
        nic: None,
    }
}

fn joined(model: &Model, setup: &Setup) -> String {
    model.arguments(setup).join(" ")
}

const TCG: Model = Model {
    machine: MachineChoice::Microvm,
    accel: Accel::Tcg,
    cpu: "qemu64,+arat",
    major: 7,
};

fn boot() -> Start {
    Start::Boot {
        kernel: "/k".into(),
        initrd: "/i".into(),
        cmdline: "console=ttyS0".into(),
    }
}

fn check(model: &Model, setup: &Setup, present: &[&str], absent: &[&str]) {
    let line = joined(model, setup);
    for word in present {
        assert!(line.contains(word), "{word:?} is missing in {line}");
    }
    for word in absent {
        assert!(!line.contains(word), "{word:?} should not be in {line}");
    }
    assert!(line.contains("-sandbox on,"), "{line}");
    assert!(
        !line.contains("balloon"),
        "a balloon punches holes into shared RAM"
    );
}

#[test]
fn each_way_to_start_has_its_words() {
    let table: &[(Start, RamMap, &[&str], &[&str])] = &[
        (
            boot(),
            RamMap::Own,
            &[
                "-kernel /k -initrd /i -append console=ttyS0",
                "share=on",
                "thread=single",
            ],
            &["-incoming", " -S ", "pit=off", "-bios"],
        ),
        (
            Start::Load,
            RamMap::CopyOnWrite,
            &[
                "-incoming fd:31",
                "share=off",
                "send-configuration=off",
                "suppress-vmdesc=on",
            ],
            &["-kernel", " -S ", "share=on"],
        ),
        (
            Start::LoadLater,
            RamMap::Own,
            &["-S -incoming defer"],
            &["fd:31"],
        ),
    ];
    for (start, ram, present, absent) in table {
        check(&TCG, &setup(start.clone(), *ram), present, absent);
    }
}

#[test]
fn each_machine_has_its_words() {
    let booted = setup(boot(), RamMap::Own);
    let two = Setup {
        vcpus: 2,
        ..booted.clone()
    };
    check(
        &TCG,
        &two,
        &["-smp 2", "thread=multi", "-cpu qemu64,+arat"],
        &[],
    );
    let kvm = Model {
        accel: Accel::Kvm,
        cpu: "host",
        ..TCG
    };
    check(
        &kvm,
        &booted,
        &["-accel kvm", "pit=off,pic=off", "-cpu host"],
        &["tb-size"],
    );
    let q35 = Model {
        machine: MachineChoice::Q35,
        ..TCG
    };
    let devices = [
        "q35,smm=off",
        "virtio-blk-pci-non-transitional,addr=0x3,drive=root",
        "virtio-rng-pci",
    ];
    check(&q35, &booted, &devices, &["mmio"]);
    check(
        &Model { major: 10, ..TCG },
        &booted,
        &["-bios qboot.rom"],
        &[],
    );
}

#[test]
fn a_card_has_the_last_place_and_offers_no_announcement() {
    let connected = Setup {
        nic: Some(Nic {
            netns: "/run/netns/a".into(),
            tap: "tap0".into(),
            mac: [2, 0xc0, 0xff, 0, 0, 1],
        }),
        ..setup(boot(), RamMap::Own)
    };
    let card = "netdev=net,id=nic,mac=02:c0:ff:00:00:01,guest_announce=off";
    let mmio = format!("virtio-net-device,bus=virtio-mmio-bus.5,{card}");
    check(
        &TCG,
        &connected,
        &[&mmio, "tap,id=net,fd=34,vhost=off"],
        &["rombar"],
    );
    let q35 = Model {
        machine: MachineChoice::Q35,
        ..TCG
    };
    let pci = format!("virtio-net-pci-non-transitional,addr=0x7,{card},rombar=0,romfile=");
    check(&q35, &connected, &[&pci], &[]);
    check(
        &TCG,
        &setup(boot(), RamMap::Own),
        &[],
        &["-netdev", "virtio-net"],
    );
}

#[test]
fn only_the_top_of_the_chain_is_writable() {
    let arguments = TCG.arguments(&setup(boot(), RamMap::Own));
    let nodes: Vec<Value> = arguments
        .iter()
        .filter(|word| word.starts_with('{'))
        .map(|word| serde_json::from_str(word).unwrap())
        .collect();
    let node = |name: &str| nodes.iter().find(|node| node["node-name"] == name).unwrap();
    for (name, read_only) in [
        ("root", true),
        ("disk0f", true),
        ("disk0", true),
        ("disk1f", false),
        ("disk1", false),
    ] {
        assert_eq!(node(name)["read-only"] == true, read_only, "{name}");
    }
    assert_eq!(node("disk1")["backing"], "disk0");
    assert_eq!(node("root")["filename"], "/images/a,b.erofs");
}

#[test]
fn commas_in_paths_are_doubled() {
    assert!(
        joined(&TCG, &setup(boot(), RamMap::Own)).contains("path=/i/a,,b/console.log,append=on")
    );
}

/// Saved machines load only with the same devices in the same places.
#[test]
fn a_restored_machine_has_the_devices_of_a_booted_one() {
    let devices = |start| {
        let words = TCG.arguments(&setup(start, RamMap::Own));
        let pairs = words
            .windows(2)
            .filter(|pair| pair[0] == "-device" || pair[0] == "-cpu");
        pairs.map(|pair| pair[1].clone()).collect::<Vec<_>>()
    };
    assert_eq!(devices(boot()), devices(Start::Load));
    assert_eq!(devices(boot()), devices(Start::LoadLater));
}
