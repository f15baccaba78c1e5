//! The last words of a process whose thread made a system call that it may not make.
#![allow(unsafe_code)]

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The head of `siginfo_t` for SIGSYS (Linux, 64 bit).
#[repr(C)]
struct SigSys {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    _pad: libc::c_int,
    call_address: *mut libc::c_void,
    syscall: libc::c_int,
    _arch: libc::c_uint,
}

/// Lets a forbidden system call end the process by SIGSYS, after one line on stderr that names it.
pub(super) fn install() -> nix::Result<()> {
    // The second SIGSYS has its default action: the end.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER;
    let action = SigAction::new(SigHandler::SigAction(forbidden), flags, SigSet::empty());
    // SAFETY: the handler makes async-signal-safe calls only, and touches no data but its own stack.
    unsafe { sigaction(Signal::SIGSYS, &action) }.map(drop)
}

extern "C" fn forbidden(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid siginfo_t over, and for SIGSYS by seccomp it begins with these fields.
    let number = unsafe { (*info.cast::<SigSys>()).syscall };
    let mut line = [0; 160];
    let used = message(number, &mut line);
    // SAFETY: `line` has at least `used` octets; write, and raise below, are async-signal-safe.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), used);
        libc::raise(libc::SIGSYS);
    }
}

/// Without allocation: this runs in a signal handler.
fn message(number: libc::c_int, line: &mut [u8; 160]) -> usize {
    let mut used = 0;
    let mut put = |text: &[u8]| {
        line[used..used + text.len()].copy_from_slice(text);
        used += text.len();
    };
    put(b"ERROR: system call ");
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    put(&digits[at..]);
    put(b" is not one that this thread may make (docs/security.md, seccomp): the process ends\n");
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words() {
        for (number, digits) in [(0, "0"), (59, "59"), (i32::MAX, "2147483647")] {
            let mut line = [0; 160];
            let used = message(number, &mut line);
            let text = std::str::from_utf8(&line[..used]).unwrap();
            assert!(
                text.starts_with(&format!("ERROR: system call {digits} is not")) && text.ends_with('\n'),
                "{text}"
            );
        }
    }
}
