//! Kernels of a few pages, packed in all ways.

use std::io::Write;

use super::*;
use crate::elf::tests::kernel;

/// A bzImage with this payload, size included.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 4 * SECTOR];
    image[SETUP_SECTS] = 2;
    image[BOOT_FLAG..BOOT_FLAG + 2].copy_from_slice(&[0x55, 0xaa]);
    image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
    image[VERSION..VERSION + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
    let mut set = |at: usize, value: u32| image[at..at + 4].copy_from_slice(&value.to_le_bytes());
    set(PAYLOAD_OFFSET, 512);
    set(PAYLOAD_LENGTH, payload.len() as u32);
    image.extend(payload);
    image.extend([0xcc; 33]);
    image
}

fn sized(mut packed: Vec<u8>, size: usize) -> Vec<u8> {
    packed.extend((size as u32).to_le_bytes());
    packed
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
    for block in bytes.chunks(1500) {
        let block = lz4_flex::block::compress(block);
        packed.extend((block.len() as u32).to_le_bytes());
        packed.extend(block);
    }
    packed
}

/// As the kernel's own script does: with the filter for x86 code.
fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut options = lzma_rust2::XzOptions::with_preset(1);
    options.prepend_pre_filter(lzma_rust2::FilterType::BcjX86, 0);
    let mut packer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn lzma(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::LzmaOptions::with_preset(1);
    let mut packer = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

#[test]
fn a_kernel_comes_out_as_it_was_packed() {
    let kernel = kernel();
    // With what the bzImage's own loader has behind it.
    let packed = [kernel.clone(), vec![9; 300]].concat();
    for (name, payload) in [
        ("gzip", gzip(&packed)),
        ("zstd", sized(zstd(&packed), packed.len())),
        ("lz4", sized(lz4(&packed), packed.len())),
        ("xz", sized(xz(&packed), packed.len())),
        ("lzma", sized(lzma(&packed), packed.len())),
    ] {
        let unpacked = extract(&bzimage(&payload));
        assert!(unpacked.is_ok_and(|bytes| bytes == packed), "{name}");
    }
    assert_eq!(extract(&kernel).unwrap(), kernel, "it was an ELF file");
}

#[test]
fn an_image_that_is_cut_off_anywhere_is_refused() {
    let payload = sized(lz4(&kernel()), kernel().len());
    let image = bzimage(&payload);
    let end = image.len() - 33;
    for length in (0..end).step_by(13).chain([end - 1]) {
        assert!(extract(&image[..length]).is_err(), "{length} bytes");
    }
    extract(&image[..end]).unwrap();
}

#[test]
fn a_damaged_payload_is_refused_whatever_packed_it() {
    let kernel = kernel();
    let size = kernel.len();
    for packed in [zstd(&kernel), lz4(&kernel), xz(&kernel), lzma(&kernel)] {
        let half = &packed[..packed.len() / 2];
        let error = extract(&bzimage(&sized(half.to_vec(), size))).unwrap_err();
        assert!(
            matches!(
                error,
                VmlinuxError::Damaged { .. } | VmlinuxError::WrongSize { .. }
            ),
            "{error}"
        );
    }
    let mut packed = gzip(&kernel);
    let end = packed.len() - 8;
    packed[end] ^= 1;
    let error = extract(&bzimage(&packed)).unwrap_err();
    assert!(matches!(error, VmlinuxError::Damaged { .. }), "{error}");
}

/// A few bytes that would become gigabytes take no more memory than the image says, and it may not
/// say much.
#[test]
fn a_bomb_is_defused_before_it_takes_memory() {
    let bomb = zstd(&vec![0; 64 << 20]);
    assert!(bomb.len() < 64 << 10);
    let error = extract(&bzimage(&sized(bomb.clone(), 4096))).unwrap_err();
    assert!(
        matches!(error, VmlinuxError::WrongSize { expected: 4096 }),
        "{error}"
    );
    let error = extract(&bzimage(&sized(bomb, u32::MAX as usize))).unwrap_err();
    assert!(matches!(error, VmlinuxError::TooLarge(_)), "{error}");
    // A dictionary of 4 GiB is asked for in five bytes.
    let greedy = [&[0x5d, 0, 0, 0, 0xff][..], &[0xff; 8], &[0; 40]].concat();
    let error = extract(&bzimage(&sized(greedy, 4096))).unwrap_err();
    assert!(
        matches!(
            error,
            VmlinuxError::Damaged {
                packing: "lzma",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn other_packings_and_other_files_are_named() {
    for (payload, wanted) in [
        (&b"BZh91AY&SY"[..], "bzip2"),
        (b"\x89LZO\0\r\n", "lzo"),
        (b"PK\x03\x04....", "[50, 4b, 03, 04, 2e, 2e]"),
        (b"", "unknown way, beginning with []"),
    ] {
        let error = extract(&bzimage(payload)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    for file in [&b""[..], b"kernel", &[0; 4096]] {
        assert!(matches!(extract(file), Err(VmlinuxError::NoKernel)));
    }
    let text = sized(zstd(b"no kernel at all"), 16);
    let error = extract(&bzimage(&text)).unwrap_err();
    assert!(matches!(error, VmlinuxError::NotBootable(_)), "{error}");
}
