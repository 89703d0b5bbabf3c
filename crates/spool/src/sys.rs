//! What isc-record needs of the system, as safe functions.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// One reading of the clocks, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    pub monotonic_ns: i64,
    pub realtime_ns: i64,
    pub boottime_ns: i64,
}

/// Reads the clocks one after the other, some tens of ns apart.
pub fn clocks() -> Clocks {
    Clocks {
        monotonic_ns: clock(libc::CLOCK_MONOTONIC),
        realtime_ns: clock(libc::CLOCK_REALTIME),
        boottime_ns: clock(libc::CLOCK_BOOTTIME),
    }
}

/// The user that this process acts as.
pub fn user() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

/// Opens a file that is this user's own and no link, to read it or to write in it.
///
/// # Errors
/// `PermissionDenied` for another user's, `InvalidData` for a directory or the like; else the system's.
pub fn open_own(path: &Path, write: bool) -> io::Result<File> {
    let mut options = File::options();
    options.read(!write).write(write);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    let facts = file.metadata()?;
    if facts.uid() != user() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    if !facts.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(file)
}

/// Whether this is a directory of this user's own, and no link to one.
pub fn is_own_dir(path: &Path) -> bool {
    let facts = std::fs::symlink_metadata(path);
    facts.is_ok_and(|facts| facts.is_dir() && facts.uid() == user())
}

/// Tells this process's pid namespace from others: an inode; 0 without /proc.
pub fn pid_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |facts| facts.ino())
}

/// CLOCK_MONOTONIC, in ns.
pub fn monotonic_ns() -> i64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// CPU time of this process so far, in ns.
pub fn cpu_ns() -> i64 {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of this thread so far, in ns.
pub fn thread_cpu_ns() -> i64 {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// A word of another process's memory; `None` if it may not be read, or is not there.
pub fn read_word(pid: u32, address: u64) -> Option<u64> {
    let mut word = [0u8; 8];
    let local = libc::iovec {
        iov_base: word.as_mut_ptr().cast(),
        iov_len: word.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: word.len(),
    };
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: the local place is as long as it says and lives for the call; the kernel checks the other one.
    let got = unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) };
    (got == 8).then(|| u64::from_ne_bytes(word))
}

fn clock(id: libc::clockid_t) -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a clock that every Linux has, and a place to write to.
    unsafe { libc::clock_gettime(id, &mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Sends a signal to one process.
///
/// # Errors
/// It is gone, or not ours.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    if pid <= 0 {
        return Err(io::ErrorKind::InvalidInput.into()); // 0 and below are groups
    }
    // SAFETY: plain numbers.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until the child `pid` has ended, and leaves it for whoever takes its status.
///
/// # Errors
/// It is not a child of ours.
pub fn wait_child(pid: u32) -> io::Result<()> {
    loop {
        // SAFETY: all zeroes is a valid siginfo_t, which waitid writes to.
        let failed = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid, &mut info, libc::WEXITED | libc::WNOWAIT)
        };
        if failed == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Bytes that can still be written to the file system of `path`.
///
/// # Errors
/// No such path.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a C string, and all zeroes is a valid statvfs, which the call fills.
    unsafe {
        let mut facts: libc::statvfs = std::mem::zeroed();
        match libc::statvfs(path.as_ptr(), &mut facts) {
            0 => Ok(facts.f_bavail * facts.f_frsize),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Whether this is a pipe or socket that nobody reads from any more.
pub fn has_no_reader(fd: &impl AsRawFd) -> bool {
    let mut asked = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one entry, for the length of the call, which does not wait.
    unsafe { libc::poll(&raw mut asked, 1, 0) == 1 && asked.revents & libc::POLLERR != 0 }
}

/// A folder that is looked at even after its name is gone.
///
/// The descriptor is never closed: in a program that closes all it finds (a daemon does), it is someone else's by then.
#[derive(Debug)]
pub struct Folder(std::mem::ManuallyDrop<std::fs::File>);

impl Folder {
    /// # Errors
    /// No such folder.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let file = std::fs::File::open(path)?;
        Ok(Folder(std::mem::ManuallyDrop::new(file)))
    }

    /// Whether somebody has removed it.
    pub fn is_removed(&self) -> bool {
        self.0
            .metadata()
            .is_ok_and(|facts| facts.nlink() == 0 && facts.is_dir())
    }
}

/// A process whose end can be waited for, a child or not.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Watches the process that has this pid now.
    ///
    /// # Errors
    /// It is gone; a kernel before 5.3.
    pub fn open(pid: u32) -> io::Result<Watch> {
        // SAFETY: plain numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        match i32::try_from(fd) {
            // SAFETY: a descriptor that this call has just made.
            Ok(fd) if fd >= 0 => Ok(Watch(unsafe { OwnedFd::from_raw_fd(fd) })),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Waits until one of these processes has ended, or the time is over.
pub fn wait_any(watches: &[Watch], timeout: Duration) {
    let mut polls: Vec<libc::pollfd> = watches
        .iter()
        .map(|watch| libc::pollfd {
            fd: watch.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: as many entries as it is told; their descriptors are open.
    unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, timeout) };
}

/// What a probe says of CUPTI, with Python's packages in these folders: its `isc_check_cupti`.
///
/// # Errors
/// What the loader says.
pub fn check_cupti(probe: &Path, sites: &str) -> Result<String, String> {
    type Check = unsafe extern "C" fn(*const libc::c_char, *mut libc::c_char, usize);
    let (Ok(path), Ok(sites)) = (
        CString::new(probe.as_os_str().as_bytes()),
        CString::new(sites),
    ) else {
        return Err("a path with a zero".into());
    };
    // SAFETY: C strings; our own library, whose function has this signature, and which stays.
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_NODELETE);
        let at = match library.is_null() {
            true => std::ptr::null_mut(),
            false => libc::dlsym(library, c"isc_check_cupti".as_ptr()),
        };
        if at.is_null() {
            let why = libc::dlerror();
            let why = (!why.is_null()).then(|| std::ffi::CStr::from_ptr(why).to_string_lossy());
            return Err(why.map_or_else(|| "it cannot be loaded".into(), |why| why.into_owned()));
        }
        let check = std::mem::transmute::<*mut libc::c_void, Check>(at);
        let mut text = [0u8; 1024];
        check(sites.as_ptr(), text.as_mut_ptr().cast(), text.len());
        let text = std::ffi::CStr::from_bytes_until_nul(&text).unwrap_or_default();
        Ok(text.to_string_lossy().into_owned())
    }
}

/// Whether the loader finds a library of this name, in the places where it looks for the program too.
pub fn loads(name: &std::ffi::CStr) -> bool {
    // SAFETY: a C string; a driver's library is made to be loaded, and does nothing before it is initialised.
    unsafe {
        let library = libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL);
        !library.is_null() && libc::dlclose(library) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_end_of_a_process_is_an_event() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let watch = Watch::open(child.id()).unwrap();
        wait_any(std::slice::from_ref(&watch), Duration::ZERO);
        kill(child.id(), libc::SIGTERM).unwrap();
        wait_any(&[watch], Duration::from_secs(60));
        wait_child(child.id()).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(kill(0, 0).is_err());
        assert!(wait_child(child.id()).is_err());
    }

    #[test]
    fn clocks_go_forward_and_file_systems_have_room() {
        let (first, cpu) = (clocks(), cpu_ns());
        let second = clocks();
        assert!(second.monotonic_ns >= first.monotonic_ns && first.boottime_ns > 0 && cpu > 0);
        assert!(free_bytes(Path::new("/")).is_ok());
        assert!(free_bytes(Path::new("/no/such/place")).is_err());
    }

    #[test]
    fn links_and_directories_are_no_file_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(open_own(&file, false).is_ok() && open_own(&file, true).is_ok());
        assert!(open_own(&link, false).is_err() && open_own(dir.path(), false).is_err());
        std::os::unix::fs::symlink(dir.path(), dir.path().join("folder")).unwrap();
        assert!(is_own_dir(dir.path()));
        assert!(!is_own_dir(&dir.path().join("folder")) && !is_own_dir(&file));
    }
}
