//! What happens by itself as time goes on: attaches and detaches come through, instances start and end.

use enipool_pool::ec2::InstanceState;
use enipool_pool::{AttachmentId, EniId, InstanceId, Timestamp};

use super::Model;
use super::event::Event;
use super::resource::AttachStatus;
use super::timing::Delay;

/// How long DescribeInstances still shows a terminated instance.
const TERMINATED_SHOWN_MS: u64 = 3_600_000;

/// Something that will happen.
#[derive(Debug, Clone)]
pub(super) enum Due {
    Attached {
        eni: EniId,
        attachment: AttachmentId,
    },
    Detached {
        eni: EniId,
        attachment: AttachmentId,
    },
    Running(InstanceId),
    Stopped(InstanceId),
    Terminated(InstanceId),
    ForgetInstance(InstanceId),
    /// Readers see the present of this interface from now on.
    Settled(EniId),
}

impl Model {
    /// Lets time pass: everything due until `to` happens, in order. A time in the past changes nothing.
    pub fn advance(&mut self, to: Timestamp) {
        while let Some(next) = self.due.first_entry().filter(|entry| entry.key().0 <= to) {
            let at = next.key().0;
            let due = next.remove();
            self.now = self.now.max(at);
            self.happen(due);
        }
        self.now = self.now.max(to);
    }

    /// When something happens by itself next.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn schedule(&mut self, delay: impl Fn(&super::Timing) -> Delay, due: Due) {
        let at = self.now.plus(delay(&self.config.timing).draw(&mut self.timing_rng));
        self.schedule_at(at, due);
    }

    pub(super) fn schedule_at(&mut self, at: Timestamp, due: Due) {
        self.due_seq += 1;
        self.due.insert((at, self.due_seq), due);
    }

    /// Holds `due` up until the fault ends.
    pub(super) fn hold(&mut self, fault: u64, due: Due) {
        self.stuck.push((fault, due));
    }

    pub(super) fn unstick(&mut self, ended: impl Fn(u64) -> bool) {
        for (fault, due) in std::mem::take(&mut self.stuck) {
            if ended(fault) {
                self.schedule_at(self.now, due);
            } else {
                self.stuck.push((fault, due));
            }
        }
        self.advance(self.now);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Attached { eni, attachment } => self.finish_attach(&eni, &attachment),
            Due::Detached { eni, attachment } => self.finish_detach(&eni, &attachment),
            Due::Running(id) => self.enter(&id, InstanceState::Running),
            Due::Stopped(id) => self.enter(&id, InstanceState::Stopped),
            Due::Terminated(id) => self.finish_terminate(&id),
            Due::ForgetInstance(id) => {
                self.instances.remove(&id);
            }
            Due::Settled(id) => self.settle(&id),
        }
    }

    /// Moves the instance on, unless something else has happened to it meanwhile.
    fn enter(&mut self, id: &InstanceId, state: InstanceState) {
        let from = match state {
            InstanceState::Running => InstanceState::Pending,
            _ => InstanceState::Stopping,
        };
        if let Some(instance) = self.instances.get_mut(id)
            && instance.state == from
        {
            self.set_state(id, state);
        }
    }

    pub(super) fn set_state(&mut self, id: &InstanceId, state: InstanceState) {
        if let Some(instance) = self.instances.get_mut(id)
            && instance.state != state
        {
            instance.state = state;
            self.events.push(Event::InstanceStateChanged { instance: id.clone(), state });
        }
    }

    /// The instance ends: its interfaces leave it, and go with it where DeleteOnTermination says so.
    fn finish_terminate(&mut self, id: &InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.metadata.clear();
        for eni in std::mem::take(&mut instance.interfaces) {
            let Some(attachment) = self.interface(&eni).and_then(|eni| eni.attachment.clone()) else { continue };
            self.unplug(&eni);
            if attachment.delete_on_termination {
                self.remove_interface(&eni);
            }
        }
        self.set_state(id, InstanceState::Terminated);
        self.schedule_at(Timestamp(self.now.0.saturating_add(TERMINATED_SHOWN_MS)), Due::ForgetInstance(id.clone()));
    }

    fn finish_attach(&mut self, eni: &EniId, attachment: &AttachmentId) {
        let now_attached = self.change_interface(eni, |interface| match interface.attachment.as_mut() {
            Some(current) if current.id == *attachment && current.status == AttachStatus::Attaching => {
                current.status = AttachStatus::Attached;
                current.plugged = true;
                Some((interface.mac, current.clone()))
            }
            _ => None,
        });
        if let Some((mac, current)) = now_attached {
            self.publish_metadata(eni, false);
            self.events.push(Event::EniAttached {
                eni: eni.clone(),
                instance: current.instance,
                mac,
                device_index: current.device_index,
            });
        }
    }

    fn finish_detach(&mut self, eni: &EniId, attachment: &AttachmentId) {
        let current = self.interface(eni).and_then(|interface| interface.attachment.as_ref());
        if current.is_some_and(|current| current.id == *attachment) {
            self.unplug(eni);
        }
    }

    /// The interface leaves its instance now.
    pub(super) fn unplug(&mut self, eni: &EniId) {
        let gone =
            self.change_interface(eni, |interface| interface.attachment.take().map(|gone| (interface.mac, gone)));
        let Some((mac, gone)) = gone else { return };
        self.attachments.remove(&gone.id);
        if let Some(instance) = self.instances.get_mut(&gone.instance) {
            instance.interfaces.retain(|id| id != eni);
        }
        if gone.plugged {
            self.retract_metadata(eni, &gone.instance);
            self.events.push(Event::EniDetached {
                eni: eni.clone(),
                instance: gone.instance,
                mac,
                device_index: gone.device_index,
            });
        }
    }
}
