//! Writing to one buffer from several threads.

use std::marker::PhantomData;

/// A mutable slice that threads write disjoint parts of.
#[derive(Clone, Copy)]
pub struct Shared<'a, T> {
    first: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `part`, whose callers promise disjoint parts.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Shared {
            first: slice.as_mut_ptr(),
            len: slice.len(),
            borrow: PhantomData,
        }
    }

    /// Where value `index` is, or would be.
    #[inline(always)]
    pub fn address(&self, index: usize) -> *const T {
        self.first.wrapping_add(index)
    }

    /// # Safety
    /// No two parts that overlap may be in use at a time.
    ///
    /// # Panics
    /// When the part is not within the slice.
    #[inline(always)]
    pub unsafe fn part(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(
            start <= self.len && len <= self.len - start,
            "{start} + {len} of {}",
            self.len
        );
        // SAFETY: within the slice (just checked), and the caller promises that it is not aliased.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(start), len) }
    }
}
