//! Images.

use api::images::Image;

use crate::cli::{coppice_at, transcript, with_stdin};
use crate::fixtures::image;
use crate::server::Script;

fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_cksum();
    builder
        .append_data(&mut header, "oci-layout", &b"{}"[..])
        .expect("appended");
    builder.into_inner().expect("complete")
}

fn script() -> Script {
    Script::default()
        .ok("POST /images/import?name=demo", &image("demo"))
        .ok("POST /images/import", &image("demo"))
}

#[test]
fn archives_come_from_files_directories_and_stdin() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("demo.tar");
    std::fs::write(&path, archive()).expect("written");
    let fake = script().serve();
    let mut command = coppice_at(&fake, &["image", "import", "--name", "demo"]);
    let output = command.arg(&path).output().expect("it starts");
    assert_eq!(output.stdout, b"docker.io/library/demo:latest\n");
    assert_eq!(fake.asked(), "POST /images/import?name=demo oci-layout");

    let fake = script().serve();
    let output = with_stdin(coppice_at(&fake, &["image", "import", "-"]), archive());
    assert!(output.status.success());
    assert_eq!(fake.asked(), "POST /images/import oci-layout");

    let layout = scratch.path().join("layout");
    std::fs::create_dir_all(layout.join("blobs/sha256")).expect("made");
    std::fs::write(layout.join("oci-layout"), "{}").expect("written");
    std::fs::write(layout.join("blobs/sha256/ab"), vec![7; 1 << 20]).expect("written");
    let fake = script().serve();
    let mut command = coppice_at(&fake, &["image", "import"]);
    let output = command.arg(&layout).output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        fake.asked(),
        "POST /images/import ./ blobs blobs/sha256 blobs/sha256/ab oci-layout"
    );
}

#[test]
fn a_missing_archive_is_an_error_here() {
    let args = ["image", "import", "missing.tar"];
    insta::assert_snapshot!("image-import-missing", transcript(&script().serve(), &args));
}

#[test]
fn images_are_listed_and_removed() {
    let failed = Image {
        status: api::images::ImageStatus::Failed,
        error: Some("layer 2 is damaged".to_owned()),
        size_bytes: None,
        ..image("broken")
    };
    let fake = Script::default()
        .ok("GET /images", &vec![image("demo"), failed])
        .serve();
    insta::assert_snapshot!("image-ls", transcript(&fake, &["image", "ls"]));
    let fake = Script::default()
        .empty("DELETE /images/docker.io%2Flibrary%2Fdemo:latest")
        .serve();
    let args = ["image", "rm", "docker.io/library/demo:latest", "ghost"];
    insta::assert_snapshot!("image-rm", transcript(&fake, &args));
}
