//! Single datagrams between a process and one that serves any: sealed under the group's key alone, without a handshake.
//!
//! ```text
//! 0  "bw"   2  format = 1   3  kind   4  the sender's boot   12  sequence   20  payload ... | tag (16)
//! ```
//!
//! Each sending process has a key of its own, derived from the group's key, its boot and its direction. The boot is 64 bits of
//! the operating system's entropy and the sequence is counted by the one [`DatagramSealer`] of that key: no nonce is used twice.
//! Whoever opens one knows that a holder of the key file made it, in which process, and as which of its datagrams; not
//! when. What is to be fresh has to name what it answers.

use arrayvec::ArrayVec;
use ring::hkdf::{self, HKDF_SHA256, Salt};

use super::frame::{self, Refused, SealError, Sealer, TAG_LEN};
use super::key::{Key, expand};
use super::keyring::KeyRing;
use super::session::StreamId;
use crate::base::ids::BootId;
use crate::base::limits::KEYS_MAX;

/// Bytes of the header, its sequence last.
pub const HEADER_LEN: usize = 20;

/// All of them go in one stream.
const STREAM: StreamId = StreamId(0);

/// Who speaks to whom, so that nobody's own words can be turned against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From members, and from whoever asks how things are.
    ToWitness,
    /// From the witness.
    FromWitness,
}

impl Direction {
    const fn label(self) -> &'static [u8] {
        match self {
            Direction::ToWitness => b"to the witness",
            Direction::FromWitness => b"from the witness",
        }
    }
}

/// What the datagrams' keys are derived from; every holder of the group's key has the same. It is never shown.
pub struct DatagramKey(hkdf::Prk);

impl DatagramKey {
    /// From the group's key.
    pub fn new(key: &Key) -> DatagramKey {
        DatagramKey(Salt::new(HKDF_SHA256, b"baton datagrams").extract(&*key.derive("witness")))
    }

    fn of_process(&self, boot: BootId) -> hkdf::Prk {
        let secret = expand::<32>(&self.0, &[b"baton process", &boot.0.to_be_bytes()]);
        hkdf::Prk::new_less_safe(HKDF_SHA256, &*secret)
    }

    /// Opens a datagram in place, whoever sent it, and as often as it comes.
    pub fn open<'a>(&self, direction: Direction, datagram: &'a mut [u8]) -> Result<Opened<'a>, Refused> {
        let Some((header, sealed)) = datagram.split_at_mut_checked(HEADER_LEN) else {
            return Err(Refused::Malformed);
        };
        let [b'b', b'w', 1, kind, ..] = *header else { return Err(Refused::Malformed) };
        let u64_at = |at: usize| header[at..at + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (boot, sequence) = (BootId(u64_at(4)), u64_at(12));
        let payload = frame::open_any(&self.of_process(boot), direction.label(), STREAM, header, sealed)?;
        Ok(Opened { kind, boot, sequence, payload })
    }
}

/// Those of a whole key file: the first one seals, and all of them open.
pub struct DatagramKeys(ArrayVec<DatagramKey, KEYS_MAX>);

impl DatagramKeys {
    /// From the group's keys.
    pub fn new(ring: &KeyRing) -> DatagramKeys {
        DatagramKeys(ring.keys().iter().map(DatagramKey::new).collect())
    }

    /// The one that seals.
    pub fn first(&self) -> &DatagramKey {
        &self.0[0]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &DatagramKey> {
        self.0.iter()
    }

    /// Opens a datagram in place, whoever sent it, and as often as it comes; tells by which of the keys.
    pub fn open<'a>(
        &self,
        direction: Direction,
        datagram: &'a mut [u8],
    ) -> Result<(usize, Opened<'a>), Refused> {
        // What does not open is destroyed: all but the last key are tried on a copy.
        let (mut copy, len) = ([0; DATAGRAM_MAX], datagram.len());
        let opens = |key: &DatagramKey| match copy.get_mut(..len) {
            Some(copy) => {
                copy.copy_from_slice(datagram);
                key.open(direction, copy).is_ok()
            }
            None => false,
        };
        let last = self.0.len() - 1;
        let at = self.0[..last].iter().position(opens).unwrap_or(last);
        self.0[at].open(direction, datagram).map(|opened| (at, opened))
    }
}

/// The longest datagram that is tried with several keys; longer ones are opened with the last one alone.
const DATAGRAM_MAX: usize = 2048;

/// What was opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// What it is, to those who speak with each other.
    pub kind: u8,
    /// The process that sent it.
    pub boot: BootId,
    /// Its place among what that process sent under this key in this direction, from 1.
    pub sequence: u64,
    /// What it says.
    pub payload: &'a [u8],
}

/// Seals what one process sends in one direction under one of the group's keys. A process makes one for each of these.
#[derive(Debug)]
pub struct DatagramSealer {
    sealer: Sealer,
    boot: BootId,
}

impl DatagramSealer {
    /// For the process of this boot.
    pub fn new(key: &DatagramKey, direction: Direction, boot: BootId) -> DatagramSealer {
        DatagramSealer { sealer: Sealer::new(key.of_process(boot), direction.label(), STREAM), boot }
    }

    /// The same process's, with another key; what was counted goes on.
    pub fn renewed(&self, key: &DatagramKey) -> DatagramSealer {
        DatagramSealer { sealer: self.sealer.renewed(key.of_process(self.boot)), boot: self.boot }
    }

    /// The sequence that the next one will have.
    pub fn next_sequence(&self) -> u64 {
        self.sealer.next_sequence()
    }

    /// Seals a payload into `out`, and gives the whole datagram's length: `HEADER_LEN` and `TAG_LEN` more than the payload's.
    pub fn seal(&mut self, kind: u8, payload: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let len = HEADER_LEN + payload.len() + TAG_LEN;
        let Some((header, sealed)) = out.get_mut(..len).and_then(|out| out.split_at_mut_checked(HEADER_LEN))
        else {
            return Err(SealError::NoRoom);
        };
        header[..4].copy_from_slice(&[b'b', b'w', 1, kind]);
        header[4..12].copy_from_slice(&self.boot.0.to_be_bytes());
        sealed[..payload.len()].copy_from_slice(payload);
        self.sealer.seal_in_place(header, sealed)?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId(77);

    fn sealed(sealer: &mut DatagramSealer, payload: &[u8]) -> Vec<u8> {
        let mut out = [0; 256];
        let len = sealer.seal(3, payload, &mut out).unwrap();
        out[..len].to_vec()
    }

    fn sealer(key: &DatagramKey) -> DatagramSealer {
        DatagramSealer::new(key, Direction::ToWitness, BOOT)
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_key_and_tells_process_and_place() {
        let key = Key::generate().unwrap();
        let key = DatagramKey::new(&key);
        let mut sealer = sealer(&key);
        for sequence in 1..4 {
            let mut datagram = sealed(&mut sealer, b"a request");
            let opened = key.open(Direction::ToWitness, &mut datagram).unwrap();
            assert_eq!(opened, Opened { kind: 3, boot: BOOT, sequence, payload: b"a request" });
        }
    }

    #[test]
    fn any_changed_byte_any_other_key_and_the_other_direction_are_forgeries() {
        let key = DatagramKey::new(&Key::generate().unwrap());
        let datagram = sealed(&mut sealer(&key), b"a request");
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            let refused = key.open(Direction::ToWitness, &mut changed).unwrap_err();
            let expected = if at < 3 { Refused::Malformed } else { Refused::Forged };
            assert_eq!(refused, expected, "byte {at}");
        }
        let other = DatagramKey::new(&Key::generate().unwrap());
        assert_eq!(other.open(Direction::ToWitness, &mut datagram.clone()), Err(Refused::Forged));
        assert_eq!(key.open(Direction::FromWitness, &mut datagram.clone()), Err(Refused::Forged));
    }

    #[test]
    fn each_key_of_a_file_opens_and_a_sealer_goes_on_counting_with_another_one() {
        let [old, new] = [Key::generate().unwrap(), Key::generate().unwrap()];
        let mut ring = KeyRing::from(old.clone());
        ring.add(new).unwrap();
        let keys = DatagramKeys::new(&ring);
        let mut sealer = sealer(&DatagramKey::new(&old));
        let mut datagram = sealed(&mut sealer, b"a request");
        assert_eq!(keys.open(Direction::ToWitness, &mut datagram).unwrap().0, 0);
        ring.put_first(ring.keys()[1].name()).unwrap();
        let changed = DatagramKeys::new(&ring);
        let mut sealer = sealer.renewed(changed.first());
        let mut datagram = sealed(&mut sealer, b"a request");
        let (at, opened) = keys.open(Direction::ToWitness, &mut datagram).unwrap();
        assert_eq!((at, opened.sequence, opened.payload), (1, 2, &b"a request"[..]));
        ring.drop_others().unwrap();
        let mut datagram = sealed(&mut self::sealer(&DatagramKey::new(&old)), b"a request");
        assert_eq!(DatagramKeys::new(&ring).open(Direction::ToWitness, &mut datagram), Err(Refused::Forged));
    }

    #[test]
    fn any_cut_and_any_rubbish_is_survived() {
        let key = DatagramKey::new(&Key::generate().unwrap());
        let datagram = sealed(&mut sealer(&key), b"a request");
        for len in 0..datagram.len() {
            assert!(key.open(Direction::ToWitness, &mut datagram[..len].to_vec()).is_err(), "{len} bytes");
        }
        assert!(key.open(Direction::ToWitness, &mut [0xff; 300]).is_err());
        assert_eq!(sealer(&key).seal(1, &[0; 100], &mut [0; 135]), Err(SealError::NoRoom));
    }
}
