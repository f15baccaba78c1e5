//! `tun-tap` gives a descriptor as a number only: what needs more.
#![allow(unsafe_code)]

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

fn descriptor(device: &tun_tap::Iface) -> BorrowedFd<'_> {
    // SAFETY: `device` owns the descriptor, and outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) }
}

/// Reading never waits from now on.
pub fn set_nonblocking(device: &tun_tap::Iface) -> std::io::Result<()> {
    fcntl(descriptor(device), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Waits until the device has a packet, at most for this long.
pub fn wait_readable(device: &tun_tap::Iface, patience: Duration) {
    let timeout = PollTimeout::try_from(patience.as_millis() + 1).unwrap_or(PollTimeout::ZERO);
    // An error is seen by who reads next.
    let _ = poll(&mut [PollFd::new(descriptor(device), PollFlags::POLLIN)], timeout);
}
