//! Workers: threads that each have a runtime and connections of their own.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self as std_mpsc, SyncSender},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::spawn_local,
    time::{sleep, timeout},
};

/// The threads that serve connections.
#[derive(Debug)]
pub struct Workers<C> {
    workers: Vec<Worker<C>>,
}

#[derive(Debug)]
struct Worker<C> {
    clients: UnboundedSender<C>,
    /// Number of connections that it has.
    load: Arc<AtomicUsize>,
}

/// The work of one thread. It never leaves the thread, so it needs no locks.
pub trait Serve<C>: 'static {
    /// Serves one client until its end.
    fn serve(self: Rc<Self>, client: C) -> impl Future<Output = ()> + 'static;
}

/// Interval at which [`Workers::drained`] looks for connections that are still open.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

impl<C: Send + 'static> Workers<C> {
    /// Starts `threads` workers that are named `name`. Each calls `make` once, on its own thread
    /// and within its runtime.
    ///
    /// # Errors
    /// If a thread or its runtime can't be started.
    pub fn start<S: Serve<C>>(
        threads: usize,
        name: &str,
        make: impl Fn() -> S + Clone + Send + 'static,
    ) -> anyhow::Result<Self> {
        let workers = (0..threads).map(|_| {
            let (clients, arriving) = mpsc::unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            let (own_load, make) = (Arc::clone(&load), make.clone());
            let (started_in, started) = std_mpsc::sync_channel(1);
            let work = move || run(arriving, &started_in, &own_load, make);
            let named = thread::Builder::new().name(name.to_owned());
            named.spawn(work).context("could not start a thread")?;
            let started = started.recv().context("a worker ended at once")?;
            started.context("could not start a worker's runtime")?;
            anyhow::Ok(Worker { clients, load })
        });
        Ok(Self {
            workers: workers.collect::<Result<_, _>>()?,
        })
    }

    /// Hands a client to the worker with the fewest connections, which keeps it until its end.
    pub fn take(&self, client: C) {
        let least = self
            .workers
            .iter()
            .min_by_key(|worker| worker.load.load(Relaxed));
        if let Some(worker) = least {
            worker.load.fetch_add(1, Relaxed);
            // A worker ends only with the process.
            worker.clients.send(client).ok();
        }
    }

    /// Returns the number of connections of all workers.
    pub fn open(&self) -> usize {
        let loads = self.workers.iter().map(|worker| &worker.load);
        loads.map(|load| load.load(Relaxed)).sum()
    }

    /// Waits until no connection is open, at most for `limit`. Returns whether that is so.
    pub async fn drained(&self, limit: Duration) -> bool {
        let all_closed = async {
            while self.open() > 0 {
                sleep(DRAIN_LOOK).await;
            }
        };
        timeout(limit, all_closed).await.is_ok()
    }
}

fn run<C: 'static, S: Serve<C>>(
    mut arriving: UnboundedReceiver<C>,
    started: &SyncSender<io::Result<()>>,
    load: &Arc<AtomicUsize>,
    make: impl Fn() -> S,
) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        // The starter is waiting for this.
        Err(error) => return drop(started.send(Err(error))),
    };
    runtime.block_on(async {
        let worker = Rc::new(make());
        started.send(Ok(())).ok();
        while let Some(client) = arriving.recv().await {
            let served = Rc::clone(&worker).serve(client);
            // The count goes down even if the task panics.
            let counted = Counted(Arc::clone(load));
            spawn_local(async move {
                let _counted = counted;
                served.await;
            });
        }
    });
}

/// A connection that counts until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
