//! Which requests are taken beside which others, and what becomes of those that are.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::memory::SMALL_BODY_BYTES;
use super::*;
use crate::message::{CatalogApply, Get, Put, ReplicaApply, Rpc, ScanStream};
use crate::rpc::{Caller, TraceId};

const CLIENT: Party = Party::Client([1; 16]);
const HOUR: Duration = Duration::from_secs(3600);

/// Four requests of each class, three of one certificate, two of one connection.
fn limits() -> AdmissionLimits {
    let classes = ClassLimits {
        requests: 4,
        requests_per_certificate: 3,
        requests_per_connection: 2,
        body_bytes: 30_000,
        body_bytes_per_certificate: 20_000,
        body_bytes_per_connection: 10_000,
    };
    AdmissionLimits {
        classes: ByClass::new(|_| classes),
        arriving_per_certificate: 2,
        connections: ConnectionLimits { connections: 16, for_peers: 4, per_client: 8, per_peer: 8, greeting: 4 },
    }
}

fn kind<R: Rpc>() -> &'static Kind {
    Kind::of(R::KIND).unwrap()
}

/// Takes a put of a client.
fn admit(admission: &Arc<Admission>, share: &Share) -> Result<Admitted, RpcError> {
    admit_as(admission, share, Class::Client)
}

fn admit_as(admission: &Arc<Admission>, share: &Share, class: Class) -> Result<Admitted, RpcError> {
    admission.admit(share, class, kind::<Put>(), Instant::now() + HOUR)
}

fn context(patience: Duration) -> RequestContext {
    RequestContext::new(Caller::Client("test".into()), Instant::now() + patience, TraceId::from_bytes([7; 16]))
}

#[test]
fn a_connection_a_certificate_and_the_node_take_so_many_requests_and_more_are_told_when_to_come_again() {
    let admission = Admission::uncounted(limits());
    let (one, other) = (admission.connect(CLIENT).unwrap(), admission.connect(CLIENT).unwrap());
    let stranger = admission.connect(Party::Client([2; 16])).unwrap();
    let refusal = |share: &Share| admit(&admission, share).map(drop).unwrap_err();
    let taken = [admit(&admission, &one).unwrap(), admit(&admission, &one).unwrap()];
    let refused = refusal(&one);
    assert!(refused.code == ErrorCode::Overloaded && refused.message.contains("this connection has 2"), "{refused}");
    assert!(refused.retry_after().is_some_and(|pause| !pause.is_zero()), "{refused:?}");
    let third = admit(&admission, &other).unwrap();
    assert!(refusal(&other).message.contains("this certificate has 3"));
    let fourth = admit(&admission, &stranger).unwrap();
    assert!(refusal(&stranger).message.contains("this node has 4"));
    drop((taken, third, fourth));
    assert!(admit(&admission, &one).is_ok(), "nothing of what was refused is held");
    assert!(admit(&admission, &one).is_ok() && admit(&admission, &other).is_ok());
    admission.stop();
    assert_eq!(refusal(&one).code, ErrorCode::NotReady);
}

#[test]
fn a_class_that_is_full_keeps_no_other_class_out() {
    for full in Class::ALL {
        let admission = Admission::uncounted(limits());
        let shares: Vec<Share> = (0..3).map(|key| admission.connect(Party::Peer([key; 16])).unwrap()).collect();
        let mut taken = Vec::new();
        for share in &shares {
            taken.extend((0..2).filter_map(|_| admit_as(&admission, share, full).ok()));
        }
        assert_eq!(taken.len(), 4, "{full:?} is full");
        for class in Class::ALL {
            let admitted = shares.iter().any(|share| admit_as(&admission, share, class).is_ok());
            assert_eq!(admitted, class != full, "{class:?} beside a full {full:?}");
            let mut body = admission.body(&shares[0], class);
            assert_eq!(body.cover(10_000), Ok(()), "bytes are counted for each class");
        }
    }
}

#[test]
fn the_bodies_of_one_class_keep_no_other_class_out_and_go_back_when_dropped() {
    let admission = Admission::uncounted(limits());
    let share = admission.connect(Party::Peer([1; 16])).unwrap();
    let mut replica = admission.body(&share, Class::Replica);
    replica.cover(10_000).unwrap();
    let refused = RpcError::from(replica.cover(10_001).unwrap_err());
    assert!(refused.code == ErrorCode::Overloaded && refused.retry_after().is_some(), "{refused}");
    assert!(admission.body(&share, Class::Replica).cover(1).is_err());
    admission.body(&share, Class::Agreement).cover(10_000).unwrap();
    drop(replica);
    admission.body(&share, Class::Replica).cover(10_000).unwrap();
}

#[test]
fn requests_on_their_way_are_bounded_for_each_certificate_and_hold_no_permit() {
    let admission = Admission::uncounted(limits());
    let (one, other) = (admission.connect(CLIENT).unwrap(), admission.connect(CLIENT).unwrap());
    let arriving = [admission.arriving(&one).unwrap(), admission.arriving(&other).unwrap()];
    let refused = admission.arriving(&one).unwrap_err();
    assert!(refused.code == ErrorCode::Overloaded && refused.message.contains("2 requests"), "{refused}");
    let stranger = admission.connect(Party::Client([2; 16])).unwrap();
    assert!(admission.arriving(&stranger).is_ok());
    let permits: Vec<_> = [&one, &one, &other].map(|share| admit(&admission, share).unwrap()).into();
    drop((arriving, permits));
    assert!(admission.arriving(&one).is_ok());
}

#[test]
fn a_deadline_that_cannot_be_met_is_refused_before_anything_is_begun() {
    let admission = Admission::uncounted(limits());
    let share = admission.connect(CLIENT).unwrap();
    let refused = |error: Result<Admitted, RpcError>| error.map(drop).unwrap_err();
    let late = refused(admission.admit(&share, Class::Client, kind::<Put>(), Instant::now()));
    assert_eq!((late.code, late.retry), (ErrorCode::Timeout, Retry::Safe), "{late}");
    let in_a_minute = Instant::now() + Duration::from_secs(60);
    for _ in 0..32 {
        admission.paces.done(Put::KIND, HOUR, Instant::now());
    }
    let hopeless = refused(admission.admit(&share, Class::Client, kind::<Put>(), in_a_minute));
    assert_eq!(hopeless.code, ErrorCode::Overloaded);
    assert!(hopeless.message.contains("Put takes 3600.0s"), "{hopeless}");
    assert!(hopeless.retry_after().is_some_and(|pause| pause >= OVERLOAD_RETRY_MAX), "{hopeless:?}");
    assert!(admission.admit(&share, Class::Client, kind::<Get>(), in_a_minute).is_ok(), "others are not slower for it");
    assert!(admission.admit(&share, Class::Client, kind::<Put>(), in_a_minute + HOUR).is_ok());
}

#[tokio::test]
async fn what_takes_as_long_as_there_is_data_and_what_was_refused_set_no_pace() {
    let admission = Admission::uncounted(limits());
    let share = admission.connect(CLIENT).unwrap();
    let (put, get, scan) = (kind::<Put>(), kind::<Get>(), kind::<ScanStream>());
    for _ in 0..32 {
        let admitted = |kind| admission.admit(&share, Class::Client, kind, Instant::now() + HOUR).unwrap();
        admitted(put).run(&context(HOUR), 0, async { Ok(()) }).await.unwrap();
        admitted(scan).run(&context(HOUR), 0, async { Ok(()) }).await.unwrap();
        let refused = async { Err::<(), _>(RpcError::invalid("as asked")) };
        admitted(get).run(&context(HOUR), 0, refused).await.unwrap_err();
    }
    let known = [put, get, scan].map(|kind| admission.paces.usual(kind.number, Instant::now()).is_some());
    assert_eq!(known, [true, false, false]);
}

#[tokio::test]
async fn a_panic_costs_its_request_a_deadline_ends_it_and_its_body_counts_as_memory_meanwhile() {
    let counted = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&counted);
    let count = move |bytes| Ok(Box::new(seen.fetch_add(bytes, Ordering::Relaxed)) as Box<dyn Send + Sync>);
    let admission = Admission::new(limits(), Box::new(count));
    let admitted = admit(&admission, &admission.connect(CLIENT).unwrap()).unwrap();
    let hour = context(HOUR);
    let current = admitted.run(&hour, 100, async { Ok(TraceId::current()) }).await;
    assert_eq!(current.unwrap(), Some(hour.trace));
    assert_eq!(counted.load(Ordering::Relaxed), 300);
    let panicked = admitted.run(&hour, 0, async { panic!("on purpose") }).await;
    let panicked: RpcError = panicked.map(|(): ()| ()).unwrap_err();
    assert!(panicked.code == ErrorCode::Internal && panicked.message.contains("Put"), "{panicked}");
    let late = admitted.run(&context(Duration::ZERO), 0, std::future::pending::<Result<(), _>>()).await;
    assert_eq!(late.unwrap_err().code, ErrorCode::Timeout);
}

#[tokio::test]
async fn a_large_request_waits_for_memory_that_others_hold_and_a_small_one_does_not() {
    let full = Arc::new(AtomicBool::new(false));
    let is_full = Arc::clone(&full);
    let count = move |_| match is_full.load(Ordering::SeqCst) {
        true => Err(NoMemory { used: 11, limit: 12 }),
        false => Ok(Box::new(()) as Box<dyn Send + Sync>),
    };
    let admission = Admission::new(limits(), Box::new(count));
    let share = admission.connect(Party::Peer([1; 16])).unwrap();
    let admitted = |class| admission.admit(&share, class, kind::<ReplicaApply>(), Instant::now() + HOUR).unwrap();
    let (held, second, context) = (admitted(Class::Replica), admitted(Class::Replica), context(HOUR));
    let mut holding = Box::pin(held.run(&context, 1 << 20, std::future::pending::<Result<(), _>>()));
    assert!(timeout(Duration::ZERO, &mut holding).await.is_err());
    full.store(true, Ordering::SeqCst);
    let refused = second.run(&context, 1 << 20, async { Ok(()) }).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Overloaded);
    assert!(refused.message.contains("11 bytes of its limit of 12") && refused.retry_after().is_some(), "{refused:?}");
    second.run(&context, SMALL_BODY_BYTES, async { Ok(()) }).await.unwrap();
    drop(holding);
    second.run(&context, 1 << 20, async { Ok(()) }).await.expect("nobody holds memory that is to be waited for");
}

#[tokio::test]
async fn a_node_that_stops_waits_for_what_is_under_way() {
    let admission = Admission::uncounted(limits());
    let request = admission.in_flight();
    assert_eq!(admission.drained(Duration::from_millis(1)).await, 1);
    drop(request);
    assert_eq!(admission.drained(Duration::from_secs(30)).await, 0);
}

#[test]
fn one_node_can_ask_for_all_that_its_clients_ask_by_the_usual_options() {
    let limits = crate::options::EndpointOptions::default().admission();
    let admission = Admission::uncounted(limits);
    let (peer, client) = (admission.connect(Party::Peer([1; 16])).unwrap(), admission.connect(CLIENT).unwrap());
    let mut asked = Vec::new();
    for _ in 0..2 * limits.classes[Class::Client].requests {
        let until = Instant::now() + HOUR;
        asked.push(admission.admit(&peer, Class::Replica, kind::<ReplicaApply>(), until).expect("H8"));
    }
    // A record is a little larger than the point that a client sent.
    let bytes = limits.classes[Class::Client].body_bytes;
    assert_eq!(admission.body(&peer, Class::Replica).cover(bytes + bytes / 4), Ok(()), "what all clients may send");
    assert!(admit(&admission, &client).is_ok());
    let until = Instant::now() + HOUR;
    assert!(admission.admit(&peer, Class::Agreement, kind::<CatalogApply>(), until).is_ok());
    let streams = admission.streams_max(&peer, ConnectionClass::Ordinary) as usize;
    assert!(streams > asked.len(), "agreement has streams beside {} of requests of clients", asked.len());
}
