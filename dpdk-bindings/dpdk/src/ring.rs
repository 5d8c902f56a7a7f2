//! `rte_ring` with one producer and one consumer, of values that move through it.

use core::cell::Cell;
use core::marker::PhantomData;
use core::mem::{MaybeUninit, size_of};
use core::ptr::NonNull;
use std::sync::Arc;

use arrayvec::ArrayVec;
use dpdk_sys as sys;

use crate::eal::Running;
use crate::error::{EINVAL, Error, c_string, check_pointer};

/// Makes a ring for exactly `capacity` values, its name unique in the process.
///
/// Values are moved, so whoever takes one out owns it. Their size must be a
/// multiple of four bytes, which the compiler checks.
pub fn ring<T: Send>(
    running: &Running,
    name: &str,
    capacity: u32,
) -> Result<(Producer<T>, Consumer<T>), Error> {
    const {
        assert!(size_of::<T>() > 0 && size_of::<T>() % 4 == 0, "rte_ring moves multiples of four bytes");
    }
    let what = format!("make a ring named {name} for {capacity} values");
    if capacity == 0 {
        return Err(Error::own(what, EINVAL, "a ring holds at least one value"));
    }
    let c_name = c_string(&what, name)?;
    let flags = sys::DPDK_RING_F_SPSC | sys::DPDK_RING_F_EXACT_SZ;
    // SAFETY: the EAL runs; the name is copied.
    let ring = check_pointer(&what, unsafe {
        sys::rte_ring_create_elem(c_name.as_ptr(), size_of::<T>() as u32, capacity, -1, flags)
    })?;
    let inner = Arc::new(Inner { ring, values: PhantomData, _running: running.clone() });
    Ok((Producer { inner: inner.clone(), not_sync: PhantomData }, Consumer { inner, not_sync: PhantomData }))
}

/// The ring itself, freed with what is in it when both ends are gone.
struct Inner<T> {
    ring: NonNull<sys::rte_ring>,
    values: PhantomData<T>,
    _running: Running,
}

// SAFETY: values are only moved through the ring, by one producer and one consumer, and the
// ring orders their memory.
unsafe impl<T: Send> Send for Inner<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Inner<T> {}

impl<T> Inner<T> {
    fn len(&self) -> usize {
        // SAFETY: the ring lives.
        unsafe { sys::dpdk_shim_ring_count(self.ring.as_ptr()) as usize }
    }

    fn capacity(&self) -> usize {
        // SAFETY: the ring lives.
        unsafe { sys::dpdk_shim_ring_capacity(self.ring.as_ptr()) as usize }
    }

    /// Moves values in and returns how many.
    ///
    /// # Safety
    /// Only one thread at a time does this. `count` values are at `values`; those
    /// that were moved in are the ring's afterwards.
    unsafe fn enqueue(&self, values: *const T, count: usize) -> usize {
        // SAFETY: the ring lives and its elements have this size; for the rest the caller answers.
        unsafe {
            sys::dpdk_shim_ring_enqueue(
                self.ring.as_ptr(),
                values.cast(),
                size_of::<T>() as u32,
                count as u32,
            ) as usize
        }
    }

    /// Moves values out and returns how many.
    ///
    /// # Safety
    /// Only one thread at a time does this. There is room for `count` values at `room`.
    unsafe fn dequeue(&self, room: *mut T, count: usize) -> usize {
        // SAFETY: the ring lives and its elements have this size; for the rest the caller answers.
        unsafe {
            sys::dpdk_shim_ring_dequeue(self.ring.as_ptr(), room.cast(), size_of::<T>() as u32, count as u32)
                as usize
        }
    }
}

impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: both ends are gone, so this is the only consumer; a value that came out is
        // ours to drop.
        unsafe {
            while self.dequeue(value.as_mut_ptr(), 1) == 1 {
                value.assume_init_drop();
            }
            sys::rte_ring_free(self.ring.as_ptr());
        }
    }
}

/// The end that puts values in. One thread has it.
pub struct Producer<T: Send> {
    inner: Arc<Inner<T>>,
    not_sync: PhantomData<Cell<()>>,
}

impl<T: Send> Producer<T> {
    /// Moves values from the front of `values` into the ring, as many as fit, and
    /// returns how many. The others stay, in order.
    #[inline]
    pub fn push<const N: usize>(&mut self, values: &mut ArrayVec<T, N>) -> usize {
        // SAFETY: `&mut self` is the only producer. What was moved in is taken off the array
        // without being dropped.
        unsafe {
            let taken = self.inner.enqueue(values.as_ptr(), values.len());
            forget_front(values, taken);
            taken
        }
    }

    /// Moves one value into the ring, or gives it back if the ring is full.
    #[inline]
    pub fn push_one(&mut self, value: T) -> Result<(), T> {
        let value = core::mem::ManuallyDrop::new(value);
        // SAFETY: `&mut self` is the only producer. The value is the ring's afterwards, or is
        // taken out of the `ManuallyDrop` once.
        match unsafe { self.inner.enqueue(&*value, 1) } {
            0 => Err(core::mem::ManuallyDrop::into_inner(value)),
            _ => Ok(()),
        }
    }

    /// Values in the ring now; the consumer may take some meanwhile.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether the ring is empty now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values fit.
    pub fn capacity(&self) -> usize {
        self.inner.capacity()
    }
}

/// The end that takes values out, in the order in which they were put in. One thread has it.
pub struct Consumer<T: Send> {
    inner: Arc<Inner<T>>,
    not_sync: PhantomData<Cell<()>>,
}

impl<T: Send> Consumer<T> {
    /// Appends values from the ring to `values`, as many as are there and fit, and
    /// returns how many.
    #[inline]
    pub fn pop<const N: usize>(&mut self, values: &mut ArrayVec<T, N>) -> usize {
        let len = values.len();
        // SAFETY: `&mut self` is the only consumer. There is room behind the array's values, and
        // what came out is its own afterwards.
        unsafe {
            let taken = self.inner.dequeue(values.as_mut_ptr().add(len), N - len);
            values.set_len(len + taken);
            taken
        }
    }

    /// Takes one value out; `None` when the ring is empty.
    #[inline]
    pub fn pop_one(&mut self) -> Option<T> {
        let mut value = MaybeUninit::uninit();
        // SAFETY: `&mut self` is the only consumer; a value that came out is initialized.
        unsafe { (self.inner.dequeue(value.as_mut_ptr(), 1) == 1).then(|| value.assume_init()) }
    }

    /// Values in the ring now; the producer may put more in meanwhile.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether the ring is empty now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values fit.
    pub fn capacity(&self) -> usize {
        self.inner.capacity()
    }
}

/// Takes the first `count` values off an array without dropping them.
///
/// # Safety
/// They have been moved elsewhere, and are no more than the array holds.
#[inline]
pub(crate) unsafe fn forget_front<T, const N: usize>(values: &mut ArrayVec<T, N>, count: usize) {
    let rest = values.len() - count;
    // SAFETY: the array holds `count + rest` values, of which the first are no longer its own.
    unsafe {
        values.set_len(rest);
        if count != 0 && rest != 0 {
            let first = values.as_mut_ptr();
            core::ptr::copy(first.add(count), first, rest);
        }
    }
}
