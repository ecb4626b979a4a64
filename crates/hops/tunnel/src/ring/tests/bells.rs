//! Goal: a peer is woken at once for what it has to do, and for nothing else.
//! Method: count the bells and the wake-ups.

use std::{future::poll_fn, io::IoSlice, pin::pin, task::Poll, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    runtime::Builder,
    sync::{mpsc, oneshot},
    task::{JoinSet, yield_now},
};

use super::{
    super::{LaneStream, Terms, lane::Lane, serve},
    rig::{Rig, ask, behind_tcp, in_process, link, one_thread, watched},
};
use crate::{hostile::RUNTIME, plugin::Target, transport::SpinLimit};

const NO_SPIN: SpinLimit = SpinLimit::Fixed(Duration::ZERO);

/// Number of yields after which every task of a runtime of one thread has come to rest.
const ROUNDS: usize = 100;

/// Sends `requests` requests over `clients` connections at once, with a pause before each. Returns
/// how many bells and wake-ups both sides count meanwhile.
async fn counted(rig: &Rig, clients: usize, requests: usize, pause: Duration) -> [u64; 2] {
    let mut asking = JoinSet::new();
    let mut connected = Vec::new();
    for _ in 0..clients {
        let mut client = rig.connect().await;
        ask(&mut client).await;
        connected.push(client);
    }
    let count = || {
        let sides = [&rig.host, &rig.plugin];
        let bells = sides.iter().map(|side| side.doorbells_sent.get()).sum();
        let wake_ups = sides.iter().map(|side| side.wake_ups.get()).sum();
        [bells, wake_ups]
    };
    let before: [u64; 2] = count();
    for mut client in connected {
        asking.spawn(async move {
            for _ in 0..requests / clients {
                tokio::time::sleep(pause).await;
                ask(&mut client).await;
            }
        });
    }
    asking.join_all().await;
    let after = count();
    [after[0] - before[0], after[1] - before[1]]
}

async fn assert_rung_for_what_there_is(target: fn() -> Target) {
    const REQUESTS: usize = 200;
    for threads in [1, 2, 4, 8, 16] {
        let rig = Rig::start(threads, target()).await;
        for (clients, pause_ms) in [(1, 2), (1, 0), (8, 2), (8, 0)] {
            let pause = Duration::from_millis(pause_ms);
            let [bells, wake_ups] = counted(&rig, clients, REQUESTS, pause).await;
            let what = format!(
                "{bells} bells and {wake_ups} wake-ups for {REQUESTS} requests, {clients} at \
                 a time, {pause_ms} ms apart, with {threads} threads"
            );
            // A bell for the request and one for the answer, which an upstream may send in two
            // pieces.
            assert!(bells <= 3 * REQUESTS as u64, "{what}");
            // In addition, a wake-up for the client and one for the upstream.
            assert!(wake_ups <= 5 * REQUESTS as u64, "{what}");
        }
        rig.stop().await;
    }
}

#[test]
fn peers_are_woken_for_what_there_is_with_the_origin_in_process() {
    RUNTIME.block_on(assert_rung_for_what_there_is(in_process));
}

#[test]
fn peers_are_woken_for_what_there_is_with_an_upstream() {
    RUNTIME.block_on(assert_rung_for_what_there_is(behind_tcp));
}

#[test]
fn a_busy_link_does_not_keep_another_ones_answers() {
    let terms = Terms::new(1, 1, None, None);
    let [[busy, busy_plugin], [quiet, quiet_plugin]] = [link(terms), link(terms)];
    let (give, mut given) = mpsc::unbounded_channel();
    watched(&one_thread(), async {
        let _lane = Lane::open(&busy.link, 0, 1);
        busy.link.mark(0);
        let mut asking = Lane::open(&quiet.link, 0, 1);
        asking.send(&[IoSlice::new(b"?")]).expect("no violation");
        let links = vec![busy_plugin.link.clone(), quiet_plugin.link.clone()];
        let counters = quiet_plugin.counters.clone();
        let serving = tokio::spawn(async move {
            let serve_stream = |stream: LaneStream| give.send(stream).is_ok();
            serve(links, NO_SPIN, &counters, serve_stream).await
        });
        let mut never_idle = given.recv().await.expect("opened");
        let mut answering = given.recv().await.expect("opened");
        answering.read_u8().await.expect("asked");
        // The dispatcher wakes this task for a mark, and the task makes sure that there is another
        // mark when the dispatcher looks again.
        let (mut rounds, mut before) = (0, 0);
        let counters = quiet_plugin.counters.clone();
        let being_busy = tokio::spawn(poll_fn(move |cx| {
            let mut bytes = [0];
            let read = pin!(&mut never_idle).poll_read(cx, &mut ReadBuf::new(&mut bytes));
            assert!(read.is_pending(), "nothing was sent");
            busy.link.mark(0);
            busy.link.ring().expect("a bell");
            rounds += 1;
            if rounds == ROUNDS / 2 {
                quiet.link.parking.park();
                before = counters.doorbells_sent.get();
                let sent = pin!(&mut answering).poll_write(cx, b"!");
                assert!(sent.is_ready(), "there is room");
            }
            match rounds {
                // Counted before the dispatcher has had a chance to look in vain.
                ROUNDS => Poll::Ready(counters.doorbells_sent.get() - before),
                _ => Poll::Pending,
            }
        }));
        assert_eq!(being_busy.await.expect("no panic"), 1);
        serving.abort();
    });
}

#[test]
fn an_answer_of_another_thread_is_not_kept_while_the_dispatcher_looks() {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(3).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let [host, plugin] = link(Terms::new(1, 1, None, None));
    // Long, so that an answer that waits for its end can be told from one that doesn't.
    let looks_long = SpinLimit::Fixed(Duration::from_secs(20));
    let (counters, links) = (plugin.counters.clone(), vec![plugin.link.clone()]);
    watched(&runtime, async {
        let _lane = Lane::open(&host.link, 0, 1);
        host.link.mark(0);
        let (give, mut given) = mpsc::unbounded_channel();
        let serving = tokio::spawn(async move {
            let serve_stream = |stream: LaneStream| give.send(stream).is_ok();
            serve(links, looks_long, &counters, serve_stream).await
        });
        let mut answering = given.recv().await.expect("opened");
        host.link.parking.park();
        let (sent, wait) = oneshot::channel();
        tokio::spawn(async move {
            answering.write_all(b"!").await.expect("room");
            // Nobody listens once the test has failed.
            let _ = sent.send(answering);
        });
        let _stream = wait.await.expect("sent");
        while plugin.counters.doorbells_sent.get() == 0 {
            yield_now().await;
        }
        assert_eq!(plugin.counters.spins_in_vain.get(), 0, "it was kept");
        serving.abort();
        // This ends the looking.
        host.link.mark(0);
    });
}

#[test]
fn a_peer_that_waits_for_room_is_woken_by_a_late_reader() {
    let [host, plugin] = link(Terms::new(1, 1, None, Some(4)));
    let counters = plugin.counters.clone();
    let links = vec![plugin.link.clone()];
    watched(&one_thread(), async {
        let mut sending = Lane::open(&host.link, 0, 1);
        let mut sent = 0;
        loop {
            match sending.send(&[IoSlice::new(&[7; 512])]) {
                Ok(0) => break,
                more => sent += more.expect("no violation"),
            }
        }
        host.link.parking.park();
        let (give, mut given) = mpsc::unbounded_channel();
        let serving = tokio::spawn(async move {
            let serve_stream = |stream: LaneStream| give.send(stream).is_ok();
            serve(links, NO_SPIN, &counters, serve_stream).await
        });
        let mut reading = given.recv().await.expect("opened");
        for _ in 0..ROUNDS {
            yield_now().await;
        }
        assert_eq!(plugin.counters.doorbells_sent.get(), 0);
        let mut received = vec![0; sent];
        reading.read_exact(&mut received).await.expect("received");
        for _ in 0..ROUNDS {
            yield_now().await;
        }
        assert_eq!(plugin.counters.doorbells_sent.get(), 1);
        serving.abort();
    });
}

/// The idle clients have sent half a head and nothing more, like a client that waits for an event.
#[test]
fn idle_clients_that_spoke_last_do_not_keep_a_host_from_looking() {
    const HALF_A_HEAD: &[u8] = b"GET /bytes/7 HTTP/1.1\r\n";
    watched(&RUNTIME, async {
        let rig = Rig::start(1, in_process()).await;
        let mut idle = Vec::new();
        for _ in 0..9 {
            let mut client = rig.connect().await;
            client.write_all(HALF_A_HEAD).await.expect("written");
            idle.push(client);
        }
        let sent = (idle.len() * HALF_A_HEAD.len()) as u64;
        while rig.host.bytes_in.get() < sent {
            yield_now().await;
        }
        let looks = || rig.host.spins_found.get() + rig.host.spins_in_vain.get();
        let mut client = rig.connect().await;
        ask(&mut client).await;
        let before = looks();
        while looks() == before {
            ask(&mut client).await;
        }
        rig.stop().await;
    });
}
