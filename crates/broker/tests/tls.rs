//! Tests of TLS: a client with TLS, and TLS handshakes that are never finished.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection};
use amq_protocol::types::FieldTable;
use broker::{Broker, Config, Handle, Listener, QueueOptions};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use support::{Permissions, in_time, quick, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

struct Served {
    address: SocketAddr,
    handle: Handle,
    certificate: CertificateDer<'static>,
}

async fn serve(config: Config) -> Served {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let certificate = certified.cert.der().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (broker, handle) = Broker::new(config, Arc::new(Permissions::default()));
    let listener = Listener { socket, tls: Some(Arc::new(server)) };
    tokio::spawn(broker.run(vec![listener], std::future::pending()));
    Served { address, handle, certificate }
}

async fn connect(server: &Served) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(server.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap()
}

fn encode(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame::<Vec<u8>>(frame)(Vec::new().into()).unwrap().into_inner().0
}

fn method(channel: u16, method: AMQPClass) -> Vec<u8> {
    encode(&AMQPFrame::Method(channel, method))
}

/// A client that uses TLS.
struct Client {
    stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

impl Client {
    async fn open(server: &Served) -> Client {
        let mut client = Client { stream: connect(server).await, read: Vec::new() };
        let start = connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: "PLAIN".into(),
            response: b"\0somebody\0secret".to_vec().into(),
            locale: "en_US".into(),
        };
        let tune = connection::TuneOk { channel_max: 0, frame_max: 0, heartbeat: 0 };
        let open = connection::Open { virtual_host: "/".into() };
        let mut bytes = b"AMQP\x00\x00\x09\x01".to_vec();
        bytes.extend(method(0, AMQPClass::Connection(connection::AMQPMethod::StartOk(start))));
        bytes.extend(method(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune))));
        bytes.extend(method(0, AMQPClass::Connection(connection::AMQPMethod::Open(open))));
        bytes.extend(method(1, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))));
        let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
        bytes.extend(method(1, AMQPClass::Confirm(select)));
        client.stream.write_all(&bytes).await.unwrap();
        // start, tune, open-ok, channel.open-ok, confirm.select-ok
        for _ in 0..5 {
            let AMQPFrame::Method(..) = client.frame().await else { panic!("no method") };
        }
        client
    }

    async fn frame(&mut self) -> AMQPFrame {
        loop {
            if let Ok((rest, frame)) = parse_frame(&self.read[..]) {
                let used = self.read.len() - rest.len();
                self.read.drain(..used);
                return frame;
            }
            assert_ne!(
                in_time(self.stream.read_buf(&mut self.read)).await.unwrap(),
                0,
                "the connection ended"
            );
        }
    }

    async fn basic(&mut self) -> basic::AMQPMethod {
        match self.frame().await {
            AMQPFrame::Method(1, AMQPClass::Basic(method)) => method,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_handshake_under_tls_and_a_close() {
    let server = serve(quick()).await;
    // A client without TLS gets no reply in AMQP.
    let mut clear = TcpStream::connect(server.address).await.unwrap();
    clear.write_all(b"AMQP\x00\x00\x09\x01").await.unwrap();
    let mut answer = Vec::new();
    let _ = clear.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(&[1, 0, 0]), "{answer:?}");

    let mut stream = connect(&server).await;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.unwrap();
    let mut start = [0; 11];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!((&start[..3], &start[7..]), (&[1, 0, 0][..], &[0, 10, 0, 10][..]), "connection.start");
    assert_eq!(server.handle.stats().connections, 1);
    // connection.close, and its answer.
    stream.write_all(&[1, 0, 0, 0, 0, 0, 11, 0, 10, 0, 50, 0, 200, 0, 0, 0, 0, 0, 0xce]).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.ends_with(&[1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 51, 0xce]), "connection.close-ok");
}

#[tokio::test]
async fn a_megabyte_is_published_confirmed_and_consumed() {
    let server = serve(quick()).await;
    server.handle.declare_queue("large", QueueOptions::default()).unwrap();
    let mut client = Client::open(&server).await;
    let body: Vec<u8> = (0..1u32 << 20).map(|it| (it.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for number in 1..=3 {
        let publish = basic::Publish {
            exchange: "".into(),
            routing_key: "large".into(),
            mandatory: true,
            immediate: false,
        };
        let mut bytes = method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
        let header =
            AMQPContentHeader { class_id: 60, body_size: body.len() as u64, properties: Default::default() };
        bytes.extend(encode(&AMQPFrame::Header(1, header)));
        for piece in body.chunks(100_000) {
            bytes.extend(encode(&AMQPFrame::Body(1, piece.to_vec())));
        }
        client.stream.write_all(&bytes).await.unwrap();
        let ack = basic::Ack { delivery_tag: number, multiple: false };
        assert_eq!(client.basic().await, basic::AMQPMethod::Ack(ack));
    }
    let consume = basic::Consume {
        queue: "large".into(),
        consumer_tag: "c".into(),
        no_local: false,
        no_ack: false,
        exclusive: false,
        nowait: true,
        arguments: FieldTable::default(),
    };
    let consume = method(1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)));
    client.stream.write_all(&consume).await.unwrap();
    for number in 1..=3 {
        let basic::AMQPMethod::Deliver(deliver) = client.basic().await else { panic!("no delivery") };
        assert_eq!((deliver.delivery_tag, deliver.redelivered), (number, false));
        let AMQPFrame::Header(1, header) = client.frame().await else { panic!("no header") };
        assert_eq!(header.body_size, body.len() as u64);
        let mut got = Vec::new();
        while got.len() < body.len() {
            let AMQPFrame::Body(1, piece) = client.frame().await else { panic!("no body") };
            got.extend(piece);
        }
        assert!(got == body, "message {number} is not what was sent");
    }
    let ack = basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 0, multiple: true });
    client.stream.write_all(&method(1, AMQPClass::Basic(ack))).await.unwrap();
    until(|| server.handle.stats().acknowledged == 3).await;
    assert_eq!(server.handle.stats().memory, 0);
}

#[tokio::test]
async fn an_unfinished_handshake_times_out() {
    let server = serve(Config { handshake_timeout: Duration::from_millis(50), ..quick() }).await;
    // The first bytes of a TLS record, and nothing more.
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.unwrap();
    assert_eq!(half.read(&mut [0; 64]).await.unwrap_or(0), 0, "the connection ends");
    assert_eq!(server.handle.stats().connections, 0, "it never became a connection");
}

#[tokio::test]
async fn too_many_handshakes_close_only_the_oldest_handshakes() {
    let handshakes = 50;
    let server = serve(Config { handshakes, handshake_timeout: Duration::from_secs(3_600), ..quick() }).await;
    let mut established = Client::open(&server).await;
    let mut half_open = Vec::new();
    for number in 0..300 {
        let mut half = TcpStream::connect(server.address).await.unwrap();
        if number % 2 == 0 {
            half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.unwrap();
        }
        half_open.push(half);
    }
    // All but the last few are closed, and nothing of them is left.
    for half in half_open.iter_mut().take(300 - handshakes) {
        assert_eq!(half.read(&mut [0; 64]).await.unwrap_or(0), 0);
    }
    assert_eq!(server.handle.stats().connections, 1);
    // The established connection stays, and a new one is accepted.
    let recover = basic::AMQPMethod::Recover(basic::Recover { requeue: true });
    established.stream.write_all(&method(1, AMQPClass::Basic(recover))).await.unwrap();
    assert!(matches!(established.basic().await, basic::AMQPMethod::RecoverOk(_)));
    Client::open(&server).await;
}
