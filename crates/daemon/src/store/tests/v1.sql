CREATE TABLE images (
    digest     TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    record     TEXT NOT NULL
) STRICT;
CREATE TABLE image_names (
    name   TEXT PRIMARY KEY,
    digest TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE
) STRICT;
CREATE INDEX image_names_by_digest ON image_names(digest);
CREATE TABLE instances (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    image_digest TEXT NOT NULL REFERENCES images(digest) ON DELETE RESTRICT,
    -- The template lock, backed by the database itself: a row that is
    -- somebody's parent cannot be deleted.
    parent       TEXT REFERENCES instances(id) ON DELETE RESTRICT,
    expires_at   INTEGER,
    record       TEXT NOT NULL
) STRICT;
CREATE INDEX instances_by_parent ON instances(parent) WHERE parent IS NOT NULL;
CREATE INDEX instances_by_image ON instances(image_digest);
CREATE INDEX instances_by_expiry ON instances(expires_at) WHERE expires_at IS NOT NULL;
INSERT INTO images VALUES ('sha256:aa', 0, '{"digest":"sha256:aa","platform":"linux/amd64","size_bytes":1,"rootfs_sha256":"","entrypoint":[],"cmd":["sh"],"env":[],"working_dir":"","user":"","stop_signal":"","labels":{},"created_at":0}');
INSERT INTO image_names VALUES ('docker.io/library/busybox:latest', 'sha256:aa');
INSERT INTO instances VALUES ('bm7zbfb81vcie5p1icdosx8c', 'stump', 'sha256:aa', NULL, NULL, '{"id":"bm7zbfb81vcie5p1icdosx8c","name":"stump","spec":{"image":"image","image_digest":"sha256:aa","platform":"linux/amd64","hypervisor":"qemu","size":268435456,"overlay_size":1073741824,"vcpus":1,"env":{"A":"b"},"tags":{},"entrypoint":null,"cmd":null,"post_fork":{"command":["true"],"timeout_ms":1000}},"parent":null,"template":true,"standby":"jamrpjks9pxac284gu1sv5x0","base":null,"memory":{"mode":"booted","image_id":null},"intent":null,"exit":{"code":3,"message":null},"created_at":1,"started_at":2,"stopped_at":null,"expires_at":null,"phases":{"current":"Running","since":50,"totals_ms":{"Stopped":49}}}');
INSERT INTO instances VALUES ('cy4pdkc6thfqi05sreg2al7f', 'shoot-1', 'sha256:aa', 'bm7zbfb81vcie5p1icdosx8c', NULL, '{"id":"cy4pdkc6thfqi05sreg2al7f","name":"shoot-1","spec":{"image":"image","image_digest":"sha256:aa","platform":"linux/amd64","hypervisor":"qemu","size":268435456,"overlay_size":1073741824,"vcpus":1,"env":{},"tags":{},"entrypoint":null,"cmd":null,"post_fork":null},"parent":"bm7zbfb81vcie5p1icdosx8c","template":false,"standby":null,"base":"jamrpjks9pxac284gu1sv5x0","memory":{"mode":"shared","image_id":"jamrpjks9pxac284gu1sv5x0"},"intent":{"Standby":{"image":"iyo1nejuh4u276sd8ryedizx"}},"exit":null,"created_at":1,"started_at":null,"stopped_at":null,"expires_at":null,"phases":{"current":"Stopped","since":1,"totals_ms":{}}}');
PRAGMA user_version = 1;
