//! What the workers do, written down.

use ferry6_tun_router::batch::{Received, SendBatch, UdpPath};
use ferry6_tun_router::gro::TunSink;
use ferry6_tun_router::virtio::Header;
use ferry6_tun_router::worker::{InboundIo, OutboundIo, Report};
use std::io::IoSlice;

/// What the workers of one end did to the world.
#[derive(Default)]
pub(super) struct World {
    pub(super) wire: Vec<(Vec<u8>, UdpPath, u8)>,
    pub(super) tun: Vec<(usize, Header, Vec<u8>)>,
    pub(super) reports: Vec<Report>,
    pub(super) ike: usize,
    pub(super) handed_on: Vec<(usize, Vec<u8>)>,
}

impl TunSink for World {
    fn write(&mut self, queue: usize, header: &Header, parts: &[IoSlice<'_>]) {
        self.tun.push((queue, *header, parts.iter().flat_map(|part| part.to_vec()).collect()));
    }
}

impl OutboundIo for World {
    fn send(&mut self, batch: &mut SendBatch) {
        let (buffer, runs) = batch.runs();
        for run in runs {
            for datagram in buffer[run.start..][..run.len].chunks(run.segment) {
                self.wire.push((datagram.to_vec(), run.path, run.tos));
            }
        }
        batch.clear();
    }
    fn report(&mut self, report: Report) {
        self.reports.push(report);
    }
}

impl InboundIo for World {
    fn ike(&mut self, _message: &[u8], _meta: &Received) {
        self.ike += 1;
    }
    fn hand_off(&mut self, owner: usize, packet: &[u8], _meta: &Received) {
        self.handed_on.push((owner, packet.to_vec()));
    }
    fn report(&mut self, report: Report) {
        self.reports.push(report);
    }
}
