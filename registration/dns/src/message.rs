//! Packets: a question read, an answer written into as much room as the asker has.
//!
//! The room is 512 octets over UDP without EDNS (RFC 1035 section 4.2.1), what the asker says with EDNS but 1232 at
//! most, so that no answer is fragmented (DNS flag day 2020), and 65,535 over TCP. What is left out is announced by
//! the TC bit, except glue, which the asker can look up (RFC 2181 section 9).

use hickory_proto::{
    op::{Edns, Header, HeaderCounts, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::Record,
    serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder},
};

use crate::answer::Answer;

/// The largest answer over UDP, and what we say that we take.
pub(crate) const UDP_PAYLOAD: u16 = 1232;

/// What an OPT record without options takes.
const OPT: u16 = 11;

/// The smallest address record: a pointer to its name, type, class, time to live, length, four octets.
const SMALLEST_RECORD: usize = 16;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// A question.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) metadata: Metadata,
    pub(crate) query: Query,
    /// Aliases that we have followed ourselves: the last one's target is what is left to be asked of others.
    pub(crate) aliases: Vec<Record>,
    /// The EDNS of the asker, when it speaks it.
    edns: Option<Spoken>,
    transport: Transport,
}

#[derive(Clone, Copy, Debug)]
struct Spoken {
    payload: u16,
    version: u8,
    dnssec_ok: bool,
}

/// What a packet is.
#[derive(Debug)]
pub(crate) enum Received {
    /// A question to answer.
    Request(Box<Request>),
    /// Something that gets this code at once.
    Refused(Vec<u8>, ResponseCode),
    /// Something that gets no reply: a reply to us could come back, for ever.
    Noise,
}

/// Reads a packet.
pub(crate) fn read(packet: &[u8], transport: Transport) -> Received {
    let Ok(header) = Header::read(&mut BinDecoder::new(packet)) else { return Received::Noise };
    if header.metadata.message_type == MessageType::Response {
        return Received::Noise;
    }
    let refused = |code| {
        let mut metadata = Metadata::response_from_request(&header.metadata);
        metadata.response_code = code;
        bare(metadata).map_or(Received::Noise, |bytes| Received::Refused(bytes, code))
    };
    // NOTIFY and UPDATE have other things in the sections: say so before reading them.
    if header.metadata.op_code != OpCode::Query {
        return refused(ResponseCode::NotImp);
    }
    let Ok(mut message) = Message::from_vec(packet) else { return refused(ResponseCode::FormErr) };
    // RFC 9619: a query has one question.
    let (Some(query), 0) = (message.queries.pop(), message.queries.len()) else {
        return refused(ResponseCode::FormErr);
    };
    let edns = message.edns.as_ref().map(|edns| Spoken {
        payload: edns.max_payload(),
        version: edns.version(),
        dnssec_ok: edns.flags().dnssec_ok,
    });
    Received::Request(Box::new(Request {
        metadata: message.metadata,
        query,
        aliases: Vec::new(),
        edns,
        transport,
    }))
}

impl Request {
    /// Whether it speaks a version of EDNS that nobody has defined yet.
    pub(crate) fn has_unknown_edns(&self) -> bool {
        self.edns.is_some_and(|edns| edns.version > 0)
    }

    /// Whether it wants DNSSEC's records, which only matters to the upstream resolver.
    pub(crate) fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// How many records could fit at the very most.
    pub(crate) fn most_records(&self) -> usize {
        usize::from(self.room()) / SMALLEST_RECORD
    }

    fn room(&self) -> u16 {
        match (self.transport, self.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => 512,
            (Transport::Udp, Some(edns)) => edns.payload.clamp(512, UDP_PAYLOAD),
        }
    }

    /// The header of a reply with this code.
    pub(crate) fn reply(&self, code: ResponseCode) -> Metadata {
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.response_code = code;
        metadata
    }

    /// A packet with this code and no records.
    pub(crate) fn refuse(&self, metadata: Metadata) -> Vec<u8> {
        let answer = Answer {
            code: metadata.response_code,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            cut: false,
            leads_to: None,
        };
        self.write(metadata, &answer)
    }

    /// The packet with as much of `answer` as fits.
    pub(crate) fn write(&self, metadata: Metadata, answer: &Answer) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        match self.encode(&mut bytes, metadata, answer) {
            Ok(()) => bytes,
            Err(error) => {
                // Only a record that cannot be written at all comes here, which no record of ours is.
                tracing::warn!(%error, name = %self.query.name(), "cannot write a DNS answer");
                bare(self.reply(ResponseCode::ServFail)).unwrap_or_default()
            }
        }
    }

    fn encode(
        &self,
        bytes: &mut Vec<u8>,
        mut metadata: Metadata,
        answer: &Answer,
    ) -> Result<(), hickory_proto::ProtoError> {
        let room = self.room();
        let mut encoder = BinEncoder::new(bytes);
        // The OPT record belongs into every answer to one who speaks EDNS, also into a cut one (RFC 6891 section 7).
        encoder.set_max_size(if self.edns.is_some() { room - OPT } else { room });
        let header = encoder.place::<Header>()?;
        self.query.emit(&mut encoder)?;
        let (answers, answers_cut) = section(&mut encoder, &answer.answers)?;
        let (authorities, authority_cut) =
            if answers_cut { (0, true) } else { section(&mut encoder, &answer.authority)? };
        metadata.truncation |= answer.cut || answers_cut || authority_cut;
        let (mut additionals, _) =
            if metadata.truncation { (0, true) } else { section(&mut encoder, &answer.additional)? };
        if let Some(spoken) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD);
            edns.set_rcode_high(metadata.response_code.high());
            edns.set_dnssec_ok(spoken.dnssec_ok);
            encoder.set_max_size(room);
            Record::from(&edns).emit(&mut encoder)?;
            additionals += 1;
        }
        let counts = HeaderCounts { queries: 1, answers, authorities, additionals };
        encoder.emit_at(header, Header { metadata, counts })
    }
}

/// Writes the records that fit; says how many, and whether that is not all.
fn section(
    encoder: &mut BinEncoder<'_>,
    records: &[Record],
) -> Result<(u16, bool), hickory_proto::ProtoError> {
    let (count, cut) = match encoder.emit_all(records.iter()) {
        Ok(count) => (count, false),
        Err(hickory_proto::ProtoError::NotAllRecordsWritten { count, .. }) => (count, true),
        Err(error) => return Err(error),
    };
    // 65,535 octets hold far fewer records than that.
    Ok((u16::try_from(count).unwrap_or(u16::MAX), cut))
}

/// A header alone: the reply to what could not be read.
fn bare(metadata: Metadata) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(12);
    Header { metadata, counts: HeaderCounts::default() }.emit(&mut BinEncoder::new(&mut bytes)).ok()?;
    Some(bytes)
}
