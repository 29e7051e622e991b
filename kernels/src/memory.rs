//! Zeroed memory that starts on a cache line and is granted lazily by the operating system.

use std::alloc::{Layout, alloc_zeroed, dealloc};
#[cfg(target_arch = "x86_64")]
use std::arch::{
    asm,
    x86_64::{__cpuid, __cpuid_count, _mm_mfence},
};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::OpsError;
use rustix::mm::{Advice, madvise};

/// Of a buffer's first element, in bytes: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// A fixed number of elements, zero at first.
pub struct Memory<T: Plain> {
    /// Aligned to [`ALIGNMENT`].
    first: NonNull<T>,
    len: usize,
    /// What the allocator gave, and is to get back.
    allocation: NonNull<u8>,
    layout: Layout,
}

/// Numbers for which all bits zero is a value.
pub trait Plain: Copy + Send + Sync + 'static {}
impl Plain for u8 {}
impl Plain for i8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for i32 {}
impl Plain for f32 {}

impl<T: Plain> Memory<T> {
    /// Errors: the allocator refused, or the size overflows.
    pub fn zeroed(len: usize) -> Result<Self, OpsError> {
        let bytes = len
            .checked_mul(size_of::<T>())
            .and_then(|bytes| bytes.checked_add(ALIGNMENT));
        let bytes = bytes.ok_or(OpsError::OutOfMemory { bytes: usize::MAX })?;
        // A modest alignment lets the allocator hand out untouched pages instead of clearing them; we align ourselves.
        let layout =
            Layout::from_size_align(bytes, align_of::<T>()).map_err(|_| OpsError::OutOfMemory { bytes })?;
        // SAFETY: the layout is not empty (at least ALIGNMENT bytes).
        let allocation =
            NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(OpsError::OutOfMemory { bytes })?;
        let skip = allocation.align_offset(ALIGNMENT);
        assert!(skip < ALIGNMENT, "bytes can always be aligned");
        // SAFETY: `skip` is less than the ALIGNMENT bytes allocated on top.
        let first = unsafe { allocation.add(skip) }.cast();
        Ok(Memory {
            first,
            len,
            allocation,
            layout,
        })
    }
}

impl Memory<u8> {
    /// Zeroed, in huge pages where the operating system grants them: for what is read from end to end, again and again.
    /// Its pages are touched in pieces of 2 MiB, so it is not for what may stay empty.
    pub fn zeroed_in_huge_pages(len: usize) -> Result<Self, OpsError> {
        let memory = Memory::zeroed(len)?;
        let first = memory.allocation.as_ptr();
        let skip = first.align_offset(PAGE_BYTES);
        if let Some(whole) = memory
            .layout
            .size()
            .checked_sub(skip)
            .map(|bytes| bytes / PAGE_BYTES * PAGE_BYTES)
            && whole >= HUGE_PAGE_BYTES
        {
            // SAFETY: the pages lie within the allocation, and the advice changes nothing of what they hold. A refusal
            // costs speed alone.
            let _ = unsafe { madvise(first.add(skip).cast(), whole, Advice::LinuxHugepage) };
        }
        Ok(memory)
    }
}

/// Of x86-64 without further ado.
const PAGE_BYTES: usize = 4096;
const HUGE_PAGE_BYTES: usize = 2 << 20;

impl<T: Plain> Deref for Memory<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements from `first` lie within the allocation and were zeroed, which is a value of `T`.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T: Plain> AsRef<[T]> for Memory<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: Plain> DerefMut for Memory<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<T: Plain> Drop for Memory<T> {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout, and not freed since.
        unsafe { dealloc(self.allocation.as_ptr(), self.layout) }
    }
}

/// Lets no cache hold these bytes, so that who reads them next waits for memory, as whoever reads a large model does. Nothing
/// happens where the CPU has no instruction that does it in passing: CLFLUSH alone waits for each line, a second for 400 MB.
pub fn evict(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    if has_clflushopt() {
        for line in bytes.chunks(ALIGNMENT) {
            // SAFETY: the CPU has the instruction, which changes where these bytes are kept, and none of them.
            unsafe {
                asm!("clflushopt [{line}]", line = in(reg) line.as_ptr(), options(nostack, preserves_flags))
            };
        }
        // SAFETY: every x86-64 has it; it waits until all of them are done.
        unsafe { _mm_mfence() };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// Intel's manual, volume 2, CPUID: leaf 7, bit 23 of EBX.
#[cfg(target_arch = "x86_64")]
fn has_clflushopt() -> bool {
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx >> 23 & 1 == 1
}

// SAFETY: the memory is owned, and plain numbers may move between threads.
unsafe impl<T: Plain> Send for Memory<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Plain> Sync for Memory<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_zero() {
        for len in [0, 1, 63, 1 << 20, 5 << 20] {
            for memory in [Memory::<u8>::zeroed, Memory::zeroed_in_huge_pages].map(|made| made(len).unwrap())
            {
                assert!(memory.as_ptr().addr().is_multiple_of(ALIGNMENT));
                assert_eq!(memory.len(), len);
                assert!(memory.iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn evicted_bytes_are_still_there() {
        let mut memory = Memory::<u8>::zeroed(1 << 16).unwrap();
        memory
            .iter_mut()
            .enumerate()
            .for_each(|(at, byte)| *byte = at as u8);
        for bytes in [&memory[..], &memory[3..70], &[]] {
            evict(bytes);
        }
        assert!(memory.iter().enumerate().all(|(at, byte)| *byte == at as u8));
    }

    #[test]
    fn too_much_memory_is_an_error() {
        assert!(Memory::<f32>::zeroed(usize::MAX / 8).is_err());
        assert!(Memory::<f32>::zeroed(usize::MAX / 2).is_err());
    }
}
