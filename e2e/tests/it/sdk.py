"""What a user of the public SDK does, against the server that the environment names."""

import os
import pathlib
import sys
import tempfile

import hypeman
from hypeman import Hypeman
from hypeman.lib import cp_from_instance, cp_to_instance, exec

client = Hypeman()
assert client.health.check().status == "ok"

made = client.instances.create(
    image="busybox", name="sdk", size="128MB", overlay_size="64MB", vcpus=1,
    env={"WHO": "me"}, tags={"team": "blue"},
)
assert made.state in ("Created", "Initializing", "Running"), made.state
waited = client.instances.wait("sdk", state="Running", api_timeout="60s")
assert waited.state == "Running" and not waited.timed_out, waited
shown = client.instances.get(made.id)
assert shown.name == "sdk" and shown.vcpus == 1 and shown.size == "128 MB", shown
assert [one.id for one in client.instances.list()] == [made.id]
assert [one.id for one in client.instances.list(state="Running", tags={"team": "blue"})] == [made.id]
assert client.instances.list(tags={"team": "red"}) == []

result = exec(client, made.id, ["/bin/sh", "-c", "echo $WHO; echo err >&2; exit 3"])
assert result.exit_code == 3 and sorted(result.output.split()) == [b"err", b"me"], result
result = exec(client, made.id, ["/bin/sh", "-c", "read x; echo got $x"], stdin=b"word\n")
assert result.exit_code == 0 and result.output == b"got word\n", result
result = exec(client, made.id, ["stty", "size"], tty=True, rows=11, cols=22)
assert result.output == b"11 22\r\n", result

with tempfile.TemporaryDirectory() as scratch:
    tree = pathlib.Path(scratch, "tree")
    (tree / "empty").mkdir(parents=True)
    (tree / "large").write_bytes(b"x" * 300_000)
    (tree / "nothing").write_bytes(b"")
    cp_to_instance(client, made.id, tree, "/srv/tree")
    exec(client, made.id, ["ln", "-s", "large", "/srv/tree/link"])
    cp_from_instance(client, made.id, "/srv/tree", pathlib.Path(scratch, "back"))
    found = sorted(str(p.relative_to(scratch)) for p in pathlib.Path(scratch, "back").rglob("*"))
    assert [name.split("/")[-1] for name in found][-4:] == ["empty", "large", "link", "nothing"], found
    large = next(pathlib.Path(scratch, "back").rglob("large"))
    assert large.read_bytes() == b"x" * 300_000

stat = client.instances.stat(made.id, path="/srv/tree/large")
assert stat.exists and stat.is_file and stat.size == 300_000, stat
stats = client.instances.stats(made.id)
assert stats.instance_name == "sdk" and stats.memory_rss_bytes > 0, stats

exec(client, made.id, ["/bin/sh", "-c", "echo kept > /dev/shm/kept"])
try:
    client.instances.standby(made.id, compression={"enabled": True, "algorithm": "lz4"})
except hypeman.BadRequestError as raised:
    assert raised.body["code"] == "invalid_snapshot_compression", raised.body
else:
    sys.exit("lz4 is not what this server writes")
asleep = client.instances.standby(made.id, compression={"enabled": True, "algorithm": "zstd", "level": 3})
assert asleep.state == "Standby" and asleep.memory_image["encoding"] == "zstd", asleep
assert client.instances.restore(made.id).state == "Running"
assert exec(client, made.id, ["cat", "/dev/shm/kept"]).output == b"kept\n"
fork = client.instances.fork(made.id, name="fork", from_running=True)
assert fork.state == "Running" and fork.name == "fork", fork
assert exec(client, fork.id, ["cat", "/dev/shm/kept"]).output == b"kept\n"
assert client.instances.get(made.id).state == "Running"
lines = list(client.instances.logs(made.id, source="hypeman", tail=1000))
assert any("standby" in line for line in lines), lines

for refused, error in (
    (lambda: client.instances.get("nobody"), hypeman.NotFoundError),
    (lambda: client.instances.fork(made.id, name="fork", from_running=True), hypeman.ConflictError),
    (lambda: client.instances.create(image="busybox", name="sdk"), hypeman.BadRequestError),
    (lambda: client.instances.fork(made.id, name="other"), hypeman.ConflictError),
):
    try:
        refused()
    except error as raised:
        assert raised.body["code"], raised.body
    else:
        sys.exit(f"no {error.__name__}")

assert client.instances.stop(fork.id).state == "Stopped"
assert client.instances.start(fork.id).state in ("Created", "Initializing", "Running")
client.instances.delete(fork.id)
client.instances.delete(made.id)
assert client.instances.list() == []
print("the SDK is content with", os.environ["HYPEMAN_BASE_URL"].rsplit(":", 1)[0])
