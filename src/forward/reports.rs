//! Reports of shards to whoever has asked for them, on any thread.
//!
//! Each shard has one [`ReportTo`], by which it reports once; [`Reports`] is the future of them
//! all. Neither holds a lock, so a shard waits for nobody, and a waker of any kind will do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::{ArrayQueue, Ordering, fence};

/// The reports that some shards have been asked for. Yields them all; `None` once one was lost, as
/// its shard has ended.
pub(crate) struct Reports<R> {
    shared: Arc<Shared<R>>,
    left: usize,
    arrived: Vec<R>,
}

/// The place of one report. Dropped unused, it says that there will be none.
pub(crate) struct ReportTo<R> {
    shared: Arc<Shared<R>>,
    is_used: bool,
}

struct Shared<R> {
    /// INVARIANT: as many places as there are reports.
    arrived: ArrayQueue<Option<R>>,
    waker: ArrayQueue<Waker>,
}

impl<R> Reports<R> {
    /// The future of that many reports, at least one, and the place of each.
    pub(crate) fn new(len: usize) -> (Self, Vec<ReportTo<R>>) {
        let shared = Arc::new(Shared { arrived: ArrayQueue::new(len), waker: ArrayQueue::new(1) });
        let place = || ReportTo { shared: Arc::clone(&shared), is_used: false };
        let places = (0..len).map(|_| place()).collect();
        (Self { shared, left: len, arrived: Vec::with_capacity(len) }, places)
    }

    fn take_arrived(&mut self) -> Poll<Option<Vec<R>>> {
        while let Some(report) = self.shared.arrived.pop() {
            let Some(report) = report else { return Poll::Ready(None) };
            self.arrived.push(report);
            self.left -= 1;
        }
        match self.left {
            0 => Poll::Ready(Some(std::mem::take(&mut self.arrived))),
            _ => Poll::Pending,
        }
    }
}

impl<R> Unpin for Reports<R> {}

impl<R> Future for Reports<R> {
    type Output = Option<Vec<R>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let arrived = self.take_arrived();
        if arrived.is_ready() {
            return arrived;
        }
        // The waker goes in before the second look, so that a report in between is seen here or
        // wakes us.
        self.shared.waker.force_push(context.waker().clone());
        fence(Ordering::SeqCst);
        self.take_arrived()
    }
}

impl<R> ReportTo<R> {
    /// Reports. Whoever has asked may have given up.
    pub(crate) fn send(mut self, report: R) {
        self.put(Some(report));
    }

    fn put(&mut self, report: Option<R>) {
        if std::mem::replace(&mut self.is_used, true) {
            return;
        }
        // There is a place for each.
        self.shared.arrived.push(report).ok();
        // Between the report and the look for a waker, as in `Reports::poll`: not both can miss.
        fence(Ordering::SeqCst);
        if let Some(waker) = self.shared.waker.pop() {
            waker.wake();
        }
    }
}

impl<R> Drop for ReportTo<R> {
    fn drop(&mut self) {
        self.put(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn all_reports_are_waited_for() {
        let wakes = Arc::<Wakes>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        let poll =
            |reports: &mut Reports<u8>| Pin::new(reports).poll(&mut Context::from_waker(&waker));
        let (mut reports, mut places) = Reports::new(2);
        assert_eq!(poll(&mut reports), Poll::Pending);
        std::thread::scope(|scope| {
            let place = places.pop().unwrap();
            scope.spawn(|| place.send(7));
        });
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(poll(&mut reports), Poll::Pending);
        places.pop().unwrap().send(8);
        assert_eq!(poll(&mut reports), Poll::Ready(Some(vec![7, 8])));
        let (mut reports, places) = Reports::new(2);
        drop(places);
        assert_eq!(poll(&mut reports), Poll::Ready(None), "they are lost");
    }
}
