//! A file descriptor that an event loop can wait on until the engine has something to tell. Linux has one made for it;
//! elsewhere a pair of connected sockets does the same.
use std::io;
use std::os::fd::{AsRawFd, RawFd};

#[cfg(target_os = "linux")]
pub struct Wake {
    event: std::fs::File,
}

#[cfg(target_os = "linux")]
impl Wake {
    pub fn new() -> io::Result<Self> {
        use std::os::fd::FromRawFd;
        // SAFETY: a plain system call without pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else owns it.
        let event = unsafe { std::fs::File::from_raw_fd(fd) };
        Ok(Self { event })
    }

    /// Makes the descriptor readable. Never blocks: a full counter is readable already.
    pub fn signal(&self) {
        let _ = io::Write::write(&mut &self.event, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable until the next signal.
    pub fn clear(&self) {
        let _ = io::Read::read(&mut &self.event, &mut [0; 8]);
    }

    pub fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(not(target_os = "linux"))]
pub struct Wake {
    near: std::os::unix::net::UnixStream,
    far: std::os::unix::net::UnixStream,
}

#[cfg(not(target_os = "linux"))]
impl Wake {
    pub fn new() -> io::Result<Self> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        Ok(Self { near, far })
    }

    /// Makes the descriptor readable. Never blocks: a full buffer is readable already.
    pub fn signal(&self) {
        let _ = io::Write::write(&mut &self.far, &[1]);
    }

    /// Makes it unreadable until the next signal.
    pub fn clear(&self) {
        while matches!(io::Read::read(&mut &self.near, &mut [0; 64]), Ok(64)) {}
    }

    pub fn fd(&self) -> RawFd {
        self.near.as_raw_fd()
    }
}
