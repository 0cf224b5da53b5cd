//! The files of a webhook: read for each message, because a Secret may be replaced at any time.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use reqwest::{Url, header::HeaderValue};

use super::error::{WebhookError, WebhookUrlError};

/// URLs, tokens and certificates are smaller.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Parses a URL.
pub fn parse_url(text: &str) -> Result<Url, WebhookUrlError> {
    let url: Url = text
        .trim()
        .parse()
        .map_err(|_| WebhookUrlError::Malformed)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(WebhookUrlError::Scheme);
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(WebhookUrlError::Malformed);
    }
    Ok(url)
}

/// The URL in a file.
pub fn read_url(path: &Path) -> Result<Url, WebhookError> {
    let bytes = read(path, "the webhook URL")?;
    let text = str::from_utf8(&bytes).map_err(|_| WebhookError::NoUrl(path.to_owned()))?;
    parse_url(text).map_err(|error| match error {
        WebhookUrlError::Malformed => WebhookError::NoUrl(path.to_owned()),
        WebhookUrlError::Scheme | WebhookUrlError::NotEncrypted => error.into(),
    })
}

/// The `Authorization` header with the token in a file.
pub fn bearer(path: &Path) -> Result<HeaderValue, WebhookError> {
    let bytes = read(path, "the webhook token")?;
    let token = bytes.trim_ascii();
    let header = HeaderValue::from_bytes(&[b"Bearer ", token].concat());
    match header {
        Ok(mut header) if !token.is_empty() => {
            header.set_sensitive(true);
            Ok(header)
        }
        _ => Err(WebhookError::NoToken(path.to_owned())),
    }
}

/// Reads a file of bounded size. A pipe or a device could block the reader for ever.
pub fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, WebhookError> {
    let unreadable = |error| WebhookError::Unreadable {
        what,
        path: path.to_owned(),
        error,
    };
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(io::Error::other("larger than 1 MiB")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use tempfile::TempDir;

    use super::*;

    fn written(bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, bytes).unwrap();
        (directory, path)
    }

    #[test]
    fn a_url_is_one_line_with_or_without_a_line_break() {
        for text in [
            "https://hooks.example.org/x\n",
            "https://hooks.example.org/x",
            " https://hooks.example.org/x\r\n",
        ] {
            let (_directory, path) = written(text);
            assert_eq!(
                read_url(&path).unwrap().as_str(),
                "https://hooks.example.org/x"
            );
        }
    }

    #[test]
    fn an_invalid_url_is_not_repeated_in_the_error() {
        for bad in [
            "",
            "hooks.example.org/T0SECRET",
            "https://",
            "ftp://hooks.example.org/T0SECRET",
            "file:///T0SECRET",
            "https://a b/T0SECRET",
        ] {
            let (_directory, path) = written(bad);
            let said = read_url(&path).unwrap_err().to_string();
            assert!(!said.contains("T0SECRET"), "{bad:?}: {said}");
        }
        let (_directory, path) = written([0xff, 0xfe]);
        assert!(read_url(&path).is_err());
    }

    #[test]
    fn token_is_sent_unchanged_and_never_printed() {
        let (_directory, path) = written("s3cret\n");
        let header = bearer(&path).unwrap();
        assert_eq!(header.as_bytes(), b"Bearer s3cret");
        assert!(!format!("{header:?}").contains("s3cret"));
        for bad in ["", "\n", "two\nlines", "nul\0"] {
            let (_directory, path) = written(bad);
            assert!(
                matches!(bearer(&path), Err(WebhookError::NoToken(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let directory = TempDir::new().unwrap();
        for path in [
            directory.path().to_owned(),
            "/dev/zero".into(),
            directory.path().join("none"),
        ] {
            let said = read(&path, "it").unwrap_err().to_string();
            assert!(said.contains(path.to_str().unwrap()), "{said}");
        }
        let (_directory, path) = written(vec![b'x'; (1 << 20) + 1]);
        assert!(read(&path, "it").is_err());
    }
}
