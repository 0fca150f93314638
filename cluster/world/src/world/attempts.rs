//! What becomes of a call: attempts, at clients and at servers.

use ringcall_cluster::fleet::{Attempt, CallState, LoadProbe};
use ringcall_cluster::retry::Verdict;
use ringcall_core::frame::{ReplyHeader, request_flags};
use ringcall_core::{Cause, Failure, Status};

use super::{Call, DEADLINE, Event, WIRE, World, asked, call_of, is_wanted, readiness};
use crate::server::{Arrival, Health, Job};
use crate::trace::Offered;

impl World {
    // ---- at clients ----

    pub(super) fn offer(&mut self, offered: Offered) {
        let flags = if offered.runs_once { 0 } else { request_flags::IDEMPOTENT };
        let client = &mut self.clients[offered.client as usize];
        self.second.calls += 1;
        let Ok(state) = client.begin(self.now, &asked(&offered), flags, DEADLINE) else {
            self.second.bad += 1;
            return;
        };
        self.ask(offered.client, &state);
        let number = self.first_call + self.calls.len() as u64;
        self.calls.push_back(Some(Call { offered, state, running: Vec::new() }));
        self.after(DEADLINE, Event::Expires(number));
        self.attempt(number);
    }

    /// Asks servers how busy they are, beside a call, as its client wants.
    fn ask(&mut self, client: u32, call: &CallState) {
        let World { now, servers, cut, events, second, .. } = self;
        let now = *now;
        let readiness = readiness(servers, *cut, now, client as usize);
        self.clients[client as usize].load_probes(now, call, readiness, |probe, server| {
            second.probes += 1;
            let is_lost = cut.is_some_and(|cut| (cut.is_cut)(client as usize, server));
            match is_lost {
                true => events.push(now + probe.timeout, Event::Told(client, probe, None)),
                false => events.push(now + WIRE, Event::Asked(server, client, probe)),
            }
        });
    }

    pub(super) fn attempt(&mut self, number: u64) {
        let Some(call) = call_of(&mut self.calls, self.first_call, number) else { return };
        let client = call.offered.client as usize;
        let asked = asked(&call.offered);
        let readiness = readiness(&self.servers, self.cut, self.now, client);
        match self.clients[client].start(self.now, &asked, &mut call.state, readiness) {
            Ok(begun) => self.send(number, begun),
            Err(failure) => self.finish(number, Err(failure)),
        }
    }

    fn send(&mut self, number: u64, (attempt, server): (Attempt, usize)) {
        let now = self.now;
        let Some(call) = call_of(&mut self.calls, self.first_call, number) else { return };
        let Offered { cost, is_large, client, .. } = call.offered;
        let job = Job { call: number, attempt: attempt.number, server, cost, is_large };
        let hedge_after = attempt.hedge_after.filter(|_| call.running.is_empty());
        let is_short = now + attempt.timeout < call.state.deadline();
        let timeout = is_short.then_some(attempt.timeout);
        self.second.attempts += 1;
        self.second.extra += u64::from(attempt.number > 0);
        call.running.push(attempt);
        if !self.cut.is_some_and(|cut| (cut.is_cut)(client as usize, server)) {
            self.after(WIRE, Event::Arrives(job));
        }
        if let Some(timeout) = timeout {
            self.after(timeout, Event::Ends(job, Err(Failure::unknown(Cause::Expired))));
        }
        if let Some(wait) = hedge_after {
            self.after(wait, Event::Hedge(number));
        }
    }

    pub(super) fn hedge(&mut self, number: u64) {
        let Some(call) = call_of(&mut self.calls, self.first_call, number) else { return };
        if call.running.len() != 1 {
            return;
        }
        let client = call.offered.client as usize;
        let readiness = readiness(&self.servers, self.cut, self.now, client);
        let second = self.clients[client].hedge(self.now, &mut call.state, readiness);
        second.into_iter().for_each(|begun| self.send(number, begun));
    }

    pub(super) fn ends(&mut self, job: Job, end: Result<Status, Failure>) {
        let Some(call) = call_of(&mut self.calls, self.first_call, job.call) else { return };
        let is_it = |attempt: &Attempt| attempt.number == job.attempt;
        let Some(at) = call.running.iter().position(is_it) else { return };
        let attempt = call.running.remove(at);
        let fleet = &mut self.clients[call.offered.client as usize];
        let load = if self.says_load { self.servers[job.server].load() } else { 0 };
        let header = end.map(|status| ReplyHeader { load, ..ReplyHeader::new(status) });
        let seen = header.as_ref();
        if !call.running.is_empty() {
            if fleet.end_beside(self.now, &call.state, attempt, seen) {
                self.finish(job.call, header);
            }
            return;
        }
        match fleet.end(self.now, &mut call.state, attempt, seen) {
            Verdict::Again(wait) => self.after(wait, Event::Again(job.call)),
            Verdict::End => self.finish(job.call, header),
        }
    }

    pub(super) fn expires(&mut self, number: u64) {
        let Some(call) = call_of(&mut self.calls, self.first_call, number) else { return };
        let expired = Failure::unknown(Cause::Expired);
        let fleet = &mut self.clients[call.offered.client as usize];
        for attempt in std::mem::take(&mut call.running) {
            fleet.end_beside(self.now, &call.state, attempt, Err(&expired));
        }
        self.finish(number, Err(expired));
    }

    fn finish(&mut self, number: u64, end: Result<ReplyHeader, Failure>) {
        let index = number.checked_sub(self.first_call).map(|index| index as usize);
        let Some(call) = index.and_then(|index| self.calls.get_mut(index)?.take()) else { return };
        while self.calls.front().is_some_and(Option::is_none) {
            self.calls.pop_front();
            self.first_call += 1;
        }
        let fleet = &mut self.clients[call.offered.client as usize];
        for attempt in call.running {
            fleet.abandon(self.now, &call.state, attempt);
        }
        fleet.finish(self.now, &call.state, Some(end.as_ref()));
        if end.is_ok() {
            self.second.good += 1;
            let took = self.now.since(call.offered.at).as_micros();
            self.second.latencies_us.push(took as u32);
        } else {
            self.second.bad += 1;
        }
    }

    // ---- at servers ----

    pub(super) fn arrives(&mut self, job: Job) {
        match self.servers[job.server].arrives(job) {
            Arrival::Waits => self.work(job.server),
            Arrival::Refused(failure) => self.after(WIRE, Event::Ends(job, Err(failure))),
            Arrival::Lost => {}
        }
    }

    /// A question is answered beside the calls that wait, by who is there.
    pub(super) fn asked(&mut self, server: usize, client: u32, probe: LoadProbe) {
        let server = &self.servers[server];
        let is_there = !matches!(server.health, Health::Down { .. });
        let load = is_there.then(|| if self.says_load { server.load() } else { 0 });
        self.after(WIRE, Event::Told(client, probe, load));
    }

    fn work(&mut self, at: usize) {
        let (calls, first) = (&self.calls, self.first_call);
        let server = &mut self.servers[at];
        while let Some((job, took)) = server.begin(self.now, |job| is_wanted(calls, first, job)) {
            self.events.push(self.now + took, Event::Served(job));
        }
    }

    pub(super) fn served(&mut self, job: Job) {
        if !self.servers[job.server].served(self.now, &job) {
            return;
        }
        let call = call_of(&mut self.calls, self.first_call, job.call);
        let client = call.map_or(0, |call| call.offered.client as usize);
        if !self.cut.is_some_and(|cut| (cut.is_cut)(client, job.server)) {
            self.after(WIRE, Event::Ends(job, Ok(Status::OK)));
        }
        self.work(job.server);
    }
}
