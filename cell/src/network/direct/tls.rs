//! TLS 1.3 as libp2p has it: no authority signs anything. Each side makes a certificate at its start whose extension says, signed by the peer's
//! key, whose it is (<https://github.com/libp2p/specs/blob/master/tls/tls.md>). What libp2p's own configuration does not let one choose is the order
//! of ciphers: AES-GCM, which processors do by themselves, stands first here.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::identity::Keypair;
use libp2p::tls::certificate;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{self, cipher_suite};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, DistinguishedName,
    ServerConfig, ServerConnection, SignatureScheme,
};

use super::Carries;

/// The name of what a connection carries.
const fn name(carries: Carries) -> &'static [u8] {
    match carries {
        Carries::Calls => b"celluler/calls/1",
        Carries::Streams => b"celluler/streams/1",
    }
}

/// What a host begins its handshakes with.
pub(in crate::network) struct Keys {
    shown: Arc<SingleCertAndKey>,
    accepting: Arc<ServerConfig>,
}

impl Keys {
    /// A certificate for this life of the host.
    ///
    /// # Errors
    ///
    /// Where none can be made.
    pub(in crate::network) fn new(identity: &Keypair) -> io::Result<Self> {
        let (certificate, key) = certificate::generate(identity).map_err(io::Error::other)?;
        let provider = Arc::new(provider());
        let key = provider.key_provider.load_private_key(key).map_err(io::Error::other)?;
        let shown = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key)));
        let mut accepting = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(Arc::new(Shown(None)))
            .with_cert_resolver(Arc::clone(&shown) as _);
        accepting.alpn_protocols =
            [Carries::Calls, Carries::Streams].map(|carries| name(carries).to_vec()).to_vec();
        accepting.send_tls13_tickets = 0;
        Ok(Self { shown, accepting: Arc::new(accepting) })
    }

    /// This side's part where it was dialled.
    pub(super) fn accept(&self) -> io::Result<Connection> {
        let connection = ServerConnection::new(Arc::clone(&self.accepting)).map_err(io::Error::other)?;
        Ok(connection.into())
    }

    /// This side's part where it dials a peer: nobody else is taken for it.
    pub(super) fn dial(&self, peer: PeerId, carries: Carries) -> io::Result<Connection> {
        let mut dialling = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Shown(Some(peer))))
            .with_client_cert_resolver(Arc::clone(&self.shown) as _);
        dialling.alpn_protocols = vec![name(carries).to_vec()];
        dialling.resumption = Resumption::disabled();
        // Peers are known by their keys: no name is said.
        let nobody = ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let connection = ClientConnection::new(Arc::new(dialling), nobody).map_err(io::Error::other)?;
        Ok(connection.into())
    }
}

fn provider() -> rustls::crypto::CryptoProvider {
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    rustls::crypto::CryptoProvider { cipher_suites, ..ring::default_provider() }
}

/// Whose certificate the other side has shown.
pub(super) fn peer_of(connection: &Connection) -> io::Result<PeerId> {
    let shown = connection.peer_certificates().unwrap_or_default();
    let first = shown.first().ok_or(io::ErrorKind::PermissionDenied)?;
    Ok(certificate::parse(first).map_err(io::Error::other)?.peer_id())
}

/// What both sides have agreed that it carries.
pub(super) fn carries(connection: &Connection) -> io::Result<Carries> {
    let agreed = connection.alpn_protocol();
    let all = [Carries::Calls, Carries::Streams];
    all.into_iter()
        .find(|carries| agreed == Some(name(*carries)))
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Takes a certificate that a peer's key has signed; of that peer alone, where one is named.
#[derive(Debug)]
struct Shown(Option<PeerId>);

impl Shown {
    fn check(&self, shown: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let bad = || rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let peer = certificate::parse(shown).map_err(|_| bad())?.peer_id();
        let is_who_was_dialled = self.0.is_none_or(|dialled| dialled == peer);
        (is_who_was_dialled && others.is_empty()).then_some(()).ok_or_else(bad)
    }
}

/// TLS 1.2 is not spoken.
fn not_spoken() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered)
}

fn signed(
    message: &[u8],
    shown: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let bad = || rustls::Error::InvalidCertificate(CertificateError::BadSignature);
    let certificate = certificate::parse(shown).map_err(|_| bad())?;
    certificate.verify_signature(signature.scheme, message, signature.signature()).map_err(|_| bad())?;
    Ok(HandshakeSignatureValid::assertion())
}

/// What libp2p's certificates may be signed with and ring can check.
fn schemes() -> Vec<SignatureScheme> {
    vec![
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ED25519,
    ]
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(shown, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(not_spoken())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signed(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for Shown {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(shown, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(not_spoken())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signed(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has one side say what it has to say.
    fn say(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
        let mut said = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut said).expect("into memory");
        }
        let mut said = said.as_slice();
        while !said.is_empty() {
            to.read_tls(&mut said).expect("out of memory");
            to.process_new_packets()?;
        }
        Ok(())
    }

    /// Has both say what they have to say; how it ended.
    fn shaken(dialler: &mut Connection, accepter: &mut Connection) -> Result<(), rustls::Error> {
        while dialler.is_handshaking() || accepter.is_handshaking() || dialler.wants_write() {
            say(dialler, accepter)?;
            say(accepter, dialler)?;
        }
        Ok(())
    }

    fn peer() -> (Keypair, Keys) {
        let key = Keypair::generate_ed25519();
        let keys = Keys::new(&key).expect("a certificate");
        (key, keys)
    }

    #[test]
    fn each_side_knows_the_other_by_its_key_and_the_cipher_is_the_processors() {
        let ((here, ours), (there, theirs)) = (peer(), peer());
        let mut dialler = ours.dial(there.public().to_peer_id(), Carries::Streams).expect("begins");
        let mut accepter = theirs.accept().expect("begins");
        shaken(&mut dialler, &mut accepter).expect("they agree");
        assert_eq!(peer_of(&dialler).expect("shown"), there.public().to_peer_id());
        assert_eq!(peer_of(&accepter).expect("shown"), here.public().to_peer_id());
        assert_eq!(carries(&accepter).expect("agreed"), Carries::Streams);
        let suite = dialler.negotiated_cipher_suite().expect("agreed").suite();
        assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    }

    #[test]
    fn who_answers_for_another_peer_is_not_taken_for_it() {
        let ((_, ours), (_, theirs), (dialled, _)) = (peer(), peer(), peer());
        let mut dialler = ours.dial(dialled.public().to_peer_id(), Carries::Calls).expect("begins");
        let mut accepter = theirs.accept().expect("begins");
        shaken(&mut dialler, &mut accepter).expect_err("another one");
    }

    #[test]
    fn who_shows_no_certificate_of_a_peer_is_refused() {
        let (_, theirs) = peer();
        let mut dialling = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Shown(None)))
            .with_no_client_auth();
        dialling.alpn_protocols = vec![name(Carries::Calls).to_vec()];
        let nobody = ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let mut dialler = ClientConnection::new(Arc::new(dialling), nobody).expect("begins").into();
        let mut accepter = theirs.accept().expect("begins");
        let refused = shaken(&mut dialler, &mut accepter).expect_err("nobody");
        assert_eq!(refused, rustls::Error::NoCertificatesPresented);
    }
}
