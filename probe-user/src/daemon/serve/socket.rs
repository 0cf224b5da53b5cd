//! The Unix socket of the daemon. Its permissions are set before it accepts connections.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, fchmod},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};
use thiserror::Error;

/// The default path of the socket.
pub const DEFAULT_PATH: &str = "/run/arp-monitor/probe.sock";

/// The listen backlog.
const BACKLOG: i32 = 64;

/// Why the socket cannot be created.
#[derive(Debug, Error)]
pub enum ApiSocketError {
    /// Another process listens on the path.
    #[error(
        "another daemon listens on {}: stop it, or choose another --socket PATH (or none)",
        .0.display()
    )]
    InUse(PathBuf),
    /// The path is not a socket.
    #[error("{} exists and is not a socket: remove it, or choose another --socket PATH", .0.display())]
    NotASocket(PathBuf),
    /// The directory cannot be created.
    #[error(
        "cannot create the directory {}: {source} (run as root, or choose another --socket PATH, or none)",
        path.display()
    )]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be created.
    #[error(
        "cannot create the socket {}: {source} (run as root, or choose another --socket PATH, or none)",
        path.display()
    )]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A listening socket. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct ApiSocket {
    listener: tokio::net::UnixListener,
    name: SocketFile,
}

/// The file of a socket.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode, to recognise a later socket of another process at this path.
    identity: Option<(u64, u64)>,
}

impl ApiSocket {
    /// Listens on a path. A stale socket of a dead daemon is replaced.
    pub fn bind(path: &Path) -> Result<Self, ApiSocketError> {
        if let Some(directory) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            create_directory(directory)?;
        }
        remove_stale(path)?;
        let failed = |source: io::Error| ApiSocketError::Socket {
            path: path.to_owned(),
            source,
        };
        let listener = listen_at(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self {
            listener,
            name: SocketFile {
                path: path.to_owned(),
                identity: identity(path),
            },
        })
    }

    /// Creates the socket file again if it was removed. A socket of another program stays.
    pub fn restore(&mut self) {
        match fs::symlink_metadata(&self.name.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The file exists, or its state is unknown.
            _ => return,
        }
        let path = self.name.path.clone();
        match Self::bind(&path) {
            Ok(socket) => {
                tracing::warn!(socket = %path.display(), "the socket file was removed, and was created again");
                *self = socket;
            }
            Err(error) => tracing::debug!(%error, "the socket file was removed"),
        }
    }

    /// Waits for a client.
    pub async fn accept(&self) -> io::Result<tokio::net::UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.name.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // The file is already removed, or removing it is no longer permitted: nothing is left to do.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn create_directory(path: &Path) -> Result<(), ApiSocketError> {
    let made = DirBuilder::new().recursive(true).mode(0o750).create(path);
    made.map_err(|source| ApiSocketError::Directory {
        path: path.to_owned(),
        source,
    })
}

fn remove_stale(path: &Path) -> Result<(), ApiSocketError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(ApiSocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // If it cannot be removed, the error of `bind` is more specific.
            let _ = fs::remove_file(path);
            Ok(())
        }
        _ => Err(ApiSocketError::InUse(path.to_owned())),
    }
}

/// The mode of a socket becomes that of its file at the moment of `bind`, less the umask (`unix_bind_bsd` in
/// `net/unix/af_unix.c`), and nobody can connect before it listens: at no time is it open to others.
fn listen_at(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::from_raw_mode(0o600))?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn socket_is_restricted_to_owner_and_group_and_removed_at_exit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/probe.sock");
        let socket = ApiSocket::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(path.parent().unwrap()), 0o750);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn stale_socket_of_a_dead_daemon_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("probe.sock");
        // A listener of the standard library does not remove its file.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = ApiSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_living_daemon_is_named_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("probe.sock");
        let _first = ApiSocket::bind(&path).unwrap();
        let error = ApiSocket::bind(&path).unwrap_err();
        assert!(matches!(error, ApiSocketError::InUse(_)), "{error}");
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn regular_file_at_the_socket_path_is_left_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("probe.sock");
        fs::write(&path, "precious").unwrap();
        let error = ApiSocket::bind(&path).unwrap_err();
        assert!(matches!(error, ApiSocketError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn removed_socket_is_recreated_and_a_foreign_socket_is_left_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/probe.sock");
        let mut socket = ApiSocket::bind(&path).unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        socket.restore();
        assert_eq!(mode(&path), 0o660);
        let _client = UnixStream::connect(&path).unwrap();
        socket.accept().await.unwrap();

        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        socket.restore();
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
    }

    #[tokio::test]
    async fn a_successors_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("probe.sock");
        let socket = ApiSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        // Another file, so that it cannot get the same inode.
        fs::write(directory.path().join("x"), "").unwrap();
        let successor = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(successor);
    }
}
