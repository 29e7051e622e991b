//! Keys and certificates in files: readable for their owner alone, and never half written.

use super::TrustError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A key is below 300 bytes and a certificate below 1 KiB; whatever is larger than this is another file.
const FILE_BYTES_MAX: u64 = 64 << 10;

pub fn read(path: &Path) -> Result<String, TrustError> {
    let length = fs::metadata(path).map_err(|error| file_error(path, error))?.len();
    if length > FILE_BYTES_MAX {
        return Err(TrustError::File {
            path: path.to_owned(),
            reason: format!("{length} bytes are no PEM file of a key or certificates"),
        });
    }
    fs::read_to_string(path).map_err(|error| file_error(path, error))
}

/// When this returns, the file and its name are on the disk. After a crash the old content is there, or the new one.
pub fn write(path: &Path, text: &str) -> Result<(), TrustError> {
    write_then_rename(path, text).map_err(|error| file_error(path, error))
}

/// The text of a file with these certificates, in this order.
pub fn certificates(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|der| block("CERTIFICATE", der)).collect()
}

/// The certificates of such a text, in their order; at least one.
pub fn parse_certificates(path: &Path, text: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let bad = |reason| TrustError::File {
        path: path.to_owned(),
        reason,
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let chain = chain.map_err(|error| bad(format!("it is no PEM file: {error}")))?;
    match chain.is_empty() {
        true => Err(bad("there is no certificate in it".to_owned())),
        false => Ok(chain),
    }
}

fn block(label: &str, der: &[u8]) -> String {
    const LINE_CHARS: usize = 64;
    let text = base64(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE_CHARS));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + &format!("-----END {label}-----\n")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let number = three
            .iter()
            .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let number = number << (8 * (3 - three.len()));
        for digit in 0..4 {
            let index = number >> (18 - 6 * digit) & 63;
            text.push(match digit <= three.len() {
                true => char::from(DIGITS[index as usize]),
                false => '=',
            });
        }
    }
    text
}

fn write_then_rename(path: &Path, text: &str) -> io::Result<()> {
    let temporary = temporary_beside(path);
    // A file left by a crash may have other permissions: it is not opened but replaced.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        Some(_) | None => File::open(".")?.sync_all(),
    }
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn file_error(path: &Path, error: io::Error) -> TrustError {
    let path = path.to_owned();
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "it is missing",
        io::ErrorKind::InvalidData => "it is no text",
        _ => return TrustError::Io { path, error },
    };
    let reason = reason.to_owned();
    TrustError::File { path, reason }
}
