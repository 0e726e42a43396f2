//! Attach and detach: what EC2 checks at once, and what comes through later.

use enipool_pool::ec2::InstanceState;
use enipool_pool::{AttachmentId, EniId, InstanceId};

use super::Model;
use super::addresses::{address_limit, prefixes_unsupported};
use super::error::ApiError;
use super::lifecycle::Due;
use super::request::{AttachInterface, Response};
use super::resource::{AttachStatus, InstanceRecord, InterfaceAttachment};

impl Model {
    pub(super) fn attach_interface(
        &mut self,
        attach: &AttachInterface,
        stuck: Option<u64>,
    ) -> Result<Response, ApiError> {
        let interface = self.found_interface(&attach.interface)?.clone();
        let instance = self.found_instance(&attach.instance)?;
        if interface.attachment.is_some() {
            return Err(in_use(&attach.interface));
        }
        if !instance.takes_interfaces() {
            let message = format!("Instance '{}' is not 'running' or 'stopped'.", attach.instance);
            return Err(ApiError::client("IncorrectState", message));
        }
        if interface.zone != instance.zone {
            return Err(ApiError::invalid_combination(
                "You may not attach a network interface to an instance if they are not in the same availability zone",
            ));
        }
        let limits = &instance.info.limits;
        let card = self.check_room(instance, attach.device_index, attach.network_card)?;
        if interface.slots() > limits.ipv4_per_eni {
            return Err(address_limit());
        }
        if !interface.prefixes.is_empty() && !limits.supports_prefixes {
            return Err(prefixes_unsupported());
        }
        let running = instance.state == InstanceState::Running;
        let attachment = self.plug(&attach.interface, &attach.instance, attach.device_index, card, false)?;
        let due = Due::Attached { eni: attach.interface.clone(), attachment: attachment.clone() };
        match stuck {
            Some(fault) => self.hold(fault, due),
            None if running => self.schedule(|timing| timing.attach, due),
            // Nothing to plug it into: the instance finds it when it starts.
            None => self.schedule_at(self.now, due),
        }
        Ok(Response::Attached { attachment, network_card: card })
    }

    /// Whether another interface fits the instance at this device index; answers the network card.
    pub(super) fn check_room(&self, instance: &InstanceRecord, device_index: u32, card: u32) -> Result<u32, ApiError> {
        let info = &instance.info;
        let attached: Vec<&InterfaceAttachment> =
            instance.interfaces.iter().filter_map(|id| self.interface(id)?.attachment.as_ref()).collect();
        let Some(&room) = usize::try_from(card).ok().and_then(|card| info.enis_per_card.get(card)) else {
            return Err(ApiError::invalid_value(format!(
                "Value ({card}) for parameter networkCardIndex is invalid for instance type {}.",
                info.name
            )));
        };
        if attached.iter().any(|other| other.device_index == device_index && other.network_card == card) {
            return Err(ApiError::invalid_value(format!(
                "Instance '{}' already has an interface attached at device index '{device_index}'.",
                instance.id
            )));
        }
        let on_card = attached.iter().filter(|other| other.network_card == card).count();
        if on_card >= usize::try_from(room).unwrap_or(usize::MAX) {
            return Err(ApiError::client(
                "AttachmentLimitExceeded",
                format!("Interface count {} exceeds the limit for {}", on_card + 1, info.name),
            ));
        }
        Ok(card)
    }

    /// Ties the interface to the instance, in state `attaching`.
    pub(super) fn plug(
        &mut self,
        eni: &EniId,
        instance: &InstanceId,
        device_index: u32,
        network_card: u32,
        delete_on_termination: bool,
    ) -> Result<AttachmentId, ApiError> {
        let id: AttachmentId = self.ids.id("eni-attach")?;
        let attachment = InterfaceAttachment {
            id: id.clone(),
            instance: instance.clone(),
            device_index,
            network_card,
            status: AttachStatus::Attaching,
            attach_time: self.now,
            delete_on_termination,
            plugged: false,
        };
        self.change_interface(eni, |interface| interface.attachment = Some(attachment));
        self.attachments.insert(id.clone(), eni.clone());
        if let Some(record) = self.instances.get_mut(instance) {
            record.interfaces.push(eni.clone());
        }
        Ok(id)
    }

    pub(super) fn detach_interface(
        &mut self,
        id: &AttachmentId,
        force: bool,
        stuck: Option<u64>,
    ) -> Result<Response, ApiError> {
        let not_found = || ApiError::attachment_not_found(id.as_str());
        let eni = self.attachments.get(id).ok_or_else(not_found)?.clone();
        let attachment = self.interface(&eni).and_then(|eni| eni.attachment.as_ref()).ok_or_else(not_found)?;
        if attachment.device_index == 0 && attachment.network_card == 0 {
            return Err(ApiError::client(
                "OperationNotPermitted",
                "The network interface at device index 0 and networkCard index 0 cannot be detached.",
            ));
        }
        let running =
            self.instances.get(&attachment.instance).is_some_and(|instance| instance.state == InstanceState::Running);
        if attachment.status == AttachStatus::Detaching && !force {
            // Repeating the call is harmless.
            return Ok(Response::Done);
        }
        self.change_interface(&eni, |interface| {
            if let Some(attachment) = interface.attachment.as_mut() {
                attachment.status = AttachStatus::Detaching;
            }
        });
        let due = Due::Detached { eni, attachment: id.clone() };
        match stuck {
            Some(fault) => self.hold(fault, due),
            None if running => self.schedule(|timing| timing.detach, due),
            None => self.schedule_at(self.now, due),
        }
        Ok(Response::Done)
    }
}

pub(super) fn in_use(eni: &EniId) -> ApiError {
    ApiError::client("InvalidNetworkInterface.InUse", format!("Interface: [{eni}] in use."))
}
