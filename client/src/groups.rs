//! What the app calls about groups.

use tuckseal::ServiceId;
use tuckseal::content::{Data, Typing};

use crate::client::Client;
use crate::engine::Change;
use crate::error::{GroupError, SendError};
use crate::message::{Group, GroupId, SentId};
use crate::store::ProfileError;

impl Client {
    /// Makes a group of us and these accounts. They hear of it when we are connected.
    ///
    /// # Errors
    /// [`GroupError`]; nothing was changed.
    pub async fn create_group(
        &self,
        name: &str,
        members: &[ServiceId],
    ) -> Result<GroupId, GroupError> {
        let (name, members) = (name.to_owned(), members.to_vec());
        self.shell.call(move |engine, turn| engine.create_group(&name, &members, turn)).await
    }

    /// Gives a group another name.
    ///
    /// # Errors
    /// [`GroupError`]; nothing was changed.
    pub async fn rename_group(&self, group: GroupId, name: &str) -> Result<(), GroupError> {
        self.change_group(group, Change::Name(name.to_owned())).await
    }

    /// Takes accounts into a group: they read what is written from then on.
    ///
    /// # Errors
    /// [`GroupError`]; nothing was changed.
    pub async fn add_to_group(
        &self,
        group: GroupId,
        accounts: &[ServiceId],
    ) -> Result<(), GroupError> {
        self.change_group(group, Change::Add(accounts.to_vec())).await
    }

    /// Takes accounts out of a group: they read nothing that we, and every member who has heard of it, write
    /// from then on.
    ///
    /// # Errors
    /// [`GroupError`]; nothing was changed.
    pub async fn remove_from_group(
        &self,
        group: GroupId,
        accounts: &[ServiceId],
    ) -> Result<(), GroupError> {
        self.change_group(group, Change::Remove(accounts.to_vec())).await
    }

    async fn change_group(&self, group: GroupId, change: Change) -> Result<(), GroupError> {
        self.shell.call(move |engine, turn| engine.change_group(group, &change, turn)).await
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// [`GroupError`]; nothing was changed.
    pub async fn leave_group(&self, group: GroupId) -> Result<(), GroupError> {
        self.shell.call(move |engine, turn| engine.leave_group(group, turn)).await
    }

    /// The groups that we are or were in.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn groups(&self) -> Result<Vec<Group>, ProfileError> {
        let groups = self.shell.call(|engine, _| engine.store.rows().groups()).await?;
        Ok(groups.into_iter().map(Group::from).collect())
    }

    /// Takes a text over for a group, as [`Client::send`] does for an account.
    ///
    /// # Errors
    /// [`SendError`]; nothing was stored.
    pub async fn send_to_group(&self, group: GroupId, text: &str) -> Result<SentId, SendError> {
        self.send_data_to_group(group, Data::text(text)).await
    }

    /// As [`Client::send_to_group`], for more than a text.
    ///
    /// # Errors
    /// [`SendError`]; nothing was stored.
    pub async fn send_data_to_group(
        &self,
        group: GroupId,
        data: Data,
    ) -> Result<SentId, SendError> {
        self.shell.call(move |engine, turn| engine.send_to_group(group, data, turn)).await
    }

    /// As [`Client::typing`], to each other member of the group that is named in it; to nobody when we are in
    /// none of that id.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn typing_in_group(&self, typing: Typing) -> Result<(), ProfileError> {
        self.shell.call(move |engine, turn| engine.typing_in_group(typing, turn)).await
    }
}

impl From<crate::store::Group> for Group {
    fn from(group: crate::store::Group) -> Self {
        let is_member = group.standing == crate::store::Standing::Member;
        Self { id: group.id, name: group.name, members: group.members, is_member }
    }
}
