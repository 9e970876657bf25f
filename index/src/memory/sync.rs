//! The atomics and the arena of readers, states and slot sets: the real ones, and under `cfg(loom)` those of a model.
//!
//! With `RUSTFLAGS="--cfg loom"` the tests called `models` run their threads under loom, which tries the interleavings of
//! those threads and what each load may return. Loom treats a sequentially consistent access as one that acquires and
//! releases, so here such an access has a sequentially consistent fence before and behind it, which loom does model. An
//! access with a weaker ordering is handed on as it is.

#[cfg(not(all(loom, test)))]
pub(crate) use self::real::*;

#[cfg(all(loom, test))]
pub(crate) use self::modelled::*;

#[cfg(not(all(loom, test)))]
mod real {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
    pub(crate) use std::thread::yield_now;

    pub(crate) use crate::memory::arena::Arena;
}

#[cfg(all(loom, test))]
mod modelled {
    use std::sync::atomic::Ordering;

    use loom::sync::atomic::fence;
    pub(crate) use loom::thread::yield_now;

    use crate::memory::arena::NoMemory;

    /// A thread that spins does not go on before another one has.
    pub(crate) fn spin_loop() {
        yield_now();
    }

    /// Has one total order of everything that asks for it.
    fn ordered<R>(order: Ordering, access: impl FnOnce() -> R) -> R {
        if order != Ordering::SeqCst {
            return access();
        }
        fence(Ordering::SeqCst);
        let result = access();
        fence(Ordering::SeqCst);
        result
    }

    macro_rules! integers {
        ($($name:ident of $int:ty),+) => {$(
            #[derive(Default)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            #[allow(dead_code, reason = "each has all of what one of them needs")]
            impl $name {
                pub(crate) fn new(value: $int) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $int {
                    ordered(order, || self.0.load(order))
                }

                pub(crate) fn store(&self, value: $int, order: Ordering) {
                    ordered(order, || self.0.store(value, order));
                }

                pub(crate) fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                    ordered(order, || self.0.fetch_add(value, order))
                }

                pub(crate) fn fetch_sub(&self, value: $int, order: Ordering) -> $int {
                    ordered(order, || self.0.fetch_sub(value, order))
                }

                pub(crate) fn fetch_or(&self, value: $int, order: Ordering) -> $int {
                    ordered(order, || self.0.fetch_or(value, order))
                }

                pub(crate) fn fetch_and(&self, value: $int, order: Ordering) -> $int {
                    ordered(order, || self.0.fetch_and(value, order))
                }

                pub(crate) fn fetch_max(&self, value: $int, order: Ordering) -> $int {
                    ordered(order, || self.0.fetch_max(value, order))
                }

                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    update: impl FnMut($int) -> Option<$int>,
                ) -> Result<$int, $int> {
                    ordered(set, || self.0.fetch_update(set, fetch, update))
                }
            }
        )+};
    }

    integers!(AtomicU8 of u8, AtomicU32 of u32, AtomicU64 of u64, AtomicUsize of usize);

    pub(crate) use loom::sync::atomic::AtomicBool;

    /// An arena of a few slots that are there from the start: how arenas grow is not what is modelled.
    pub(crate) struct Arena<T>(Vec<T>);

    impl<T: Default> Arena<T> {
        pub(crate) fn new(_name: &'static str, width: usize) -> Self {
            assert_eq!(width, 1, "atoms of one slot");
            Self((0..MODEL_SLOTS).map(|_| T::default()).collect())
        }

        pub(crate) fn reserve(&self, slot: u32) -> Result<(), NoMemory> {
            assert!((slot as usize) < MODEL_SLOTS, "slot {slot} of a model");
            Ok(())
        }

        pub(crate) fn get(&self, slot: u32) -> &[T] {
            self.0.get(slot as usize).map_or(&[], std::slice::from_ref)
        }

        pub(crate) fn bytes(&self, slots: usize) -> usize {
            slots * size_of::<T>()
        }
    }

    /// Slots of a model's arena.
    const MODEL_SLOTS: usize = 3;

    /// Tries the interleavings of the threads that `model` starts, with at most `preemptions` switches that no thread asked for.
    pub(crate) fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(model);
    }
}
