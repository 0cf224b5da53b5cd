//! Limits of connections: their number in total and per peer, and their duration.

use std::{
    collections::HashMap,
    hash::Hash,
    io,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Instant, Sleep, sleep, timeout_at},
};

/// Maximum number of buffered bytes to send per connection.
const WRITE_BUFFER: usize = 64 << 10;

/// Time limit for the head of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Slots for resources of clients: a bounded number in total and per peer. Clones share them.
#[derive(Clone, Debug)]
pub struct ClientSlots<P> {
    inner: Arc<ClientSlotsInner<P>>,
}

#[derive(Debug)]
struct ClientSlotsInner<P> {
    total: usize,
    per_peer: usize,
    in_use: Mutex<HashMap<P, usize>>,
    freed: Notify,
}

/// No slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotRefusal {
    /// The peer has reached its limit.
    #[error("too many connections from this address")]
    PerPeer,
    /// All slots are in use.
    #[error("too many connections")]
    Total,
}

impl<P: Clone + Eq + Hash> ClientSlots<P> {
    /// `total` slots, of which one peer may use `per_peer`.
    pub fn new(total: usize, per_peer: usize) -> Self {
        Self {
            inner: Arc::new(ClientSlotsInner {
                total,
                per_peer,
                in_use: Mutex::default(),
                freed: Notify::new(),
            }),
        }
    }

    /// Takes a slot if one is free.
    pub fn take(&self, peer: P) -> Result<ClientSlot<P>, SlotRefusal> {
        let mut in_use = self.inner.lock();
        if in_use.values().sum::<usize>() >= self.inner.total {
            return Err(SlotRefusal::Total);
        }
        let of_peer = in_use.get(&peer).copied().unwrap_or(0);
        if of_peer >= self.inner.per_peer {
            return Err(SlotRefusal::PerPeer);
        }
        in_use.insert(peer.clone(), of_peer + 1);
        Ok(ClientSlot {
            slots: self.clone(),
            peer,
        })
    }

    /// Takes a slot, and waits until the deadline for one to become free.
    pub async fn take_until(
        &self,
        peer: P,
        deadline: Instant,
    ) -> Result<ClientSlot<P>, SlotRefusal> {
        loop {
            let mut freed = std::pin::pin!(self.inner.freed.notified());
            freed.as_mut().enable();
            let refusal = match self.take(peer.clone()) {
                Ok(slot) => return Ok(slot),
                Err(refusal) => refusal,
            };
            if timeout_at(deadline, freed).await.is_err() {
                return Err(refusal);
            }
        }
    }
}

impl<P> ClientSlotsInner<P> {
    fn lock(&self) -> MutexGuard<'_, HashMap<P, usize>> {
        // The value is consistent at any time, even after a panic.
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot, which is released when it is dropped.
#[derive(Debug)]
pub struct ClientSlot<P: Clone + Eq + Hash> {
    slots: ClientSlots<P>,
    peer: P,
}

impl<P: Clone + Eq + Hash> Drop for ClientSlot<P> {
    fn drop(&mut self) {
        let mut in_use = self.slots.inner.lock();
        if let Some(of_peer) = in_use.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                in_use.remove(&self.peer);
            }
        }
        drop(in_use);
        self.slots.inner.freed.notify_waiters();
    }
}

/// The host that an address belongs to, for limits: a host may have a whole /64 of IPv6 addresses.
pub fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Serves the requests of one connection until it ends.
pub async fn serve_connection<S>(
    stream: S,
    router: axum::Router,
    stall_limit: Duration,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(WRITE_BUFFER)
        .serve_connection(
            TokioIo::new(StallTimeout::new(stream, stall_limit)),
            TowerToHyperService::new(router),
        )
        .await
}

/// A stream whose writes fail when the peer has read nothing for too long.
#[derive(Debug)]
struct StallTimeout<S> {
    stream: S,
    limit: Duration,
    /// While a write waits for the peer.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> StallTimeout<S> {
    const fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            stalled: None,
        }
    }

    fn check<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        if stalled.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the client has read nothing for {} s", limit.as_secs()),
            )));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.check(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.check(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.check(context, result)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[test]
    fn slots_are_limited_in_total_and_per_peer_and_are_released() {
        let slots = ClientSlots::new(3, 2);
        let mut held = vec![slots.take("a").unwrap(), slots.take("a").unwrap()];
        assert_eq!(slots.take("a").unwrap_err(), SlotRefusal::PerPeer);
        held.push(slots.take("b").unwrap());
        assert_eq!(slots.take("c").unwrap_err(), SlotRefusal::Total);
        held.clear();
        let _again = slots.take("c").unwrap();
        assert_eq!(slots.inner.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_waited_for_until_the_deadline() {
        let slots = ClientSlots::new(1, 1);
        let held = slots.take(1).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        assert!(slots.take_until(2, deadline).await.is_err());
        assert_eq!(Instant::now(), deadline);
        let later = deadline + Duration::from_secs(5);
        let (waited, ()) = tokio::join!(slots.take_until(2, later), async { drop(held) });
        waited.unwrap();
        assert!(Instant::now() < later);
    }

    #[test]
    fn peer_is_an_ipv4_address_or_an_ipv6_prefix() {
        let peer = |text: &str| peer_of(text.parse().unwrap());
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:2"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_client_is_disconnected_and_a_slow_client_is_not() {
        let limit = Duration::from_secs(30);
        let (server, mut client) = duplex(8);
        let mut server = StallTimeout::new(server, limit);
        let slow = tokio::spawn(async move {
            let mut read = 0;
            while read < 24 {
                sleep(limit / 2).await;
                read += client.read(&mut [0; 4]).await.unwrap();
            }
            client
        });
        server.write_all(&[0; 24]).await.unwrap();
        let _client = slow.await.unwrap();
        let before = Instant::now();
        let error = server.write_all(&[0; 24]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(Instant::now() - before >= limit);
    }
}
