#!/usr/bin/env bash
# Makes the roles of docs/vsphere-permissions.md and grants one of them to the product's account.
#
# Environment: GOVC_URL, GOVC_USERNAME, GOVC_PASSWORD of an administrator, and
#   FAILBACK_PRINCIPAL   the account that gets the role
#   FAILBACK_SITE        production or dr
#   FAILBACK_VMS         inventory paths of folders or VMs, separated by colons
#   FAILBACK_DATASTORES  inventory paths of their datastores
#   FAILBACK_PLACES      folders, resource pools and networks where VMs are made; may be empty
#   GOVC                 the program, default govc
# Safe to run again: roles are updated, permissions set anew.
set -euo pipefail

# Every role has System.Anonymous, System.Read and System.View by itself.
production=(
  Datastore.AllocateSpace
  Datastore.Browse
  Datastore.FileManagement
  Global.DisableMethods
  Global.EnableMethods
  Global.Licenses
  Global.ManageCustomFields
  Global.SetCustomField
  Network.Assign
  Resource.AssignVMToPool
  VirtualMachine.Config.AddNewDisk
  VirtualMachine.Config.AddRemoveDevice
  VirtualMachine.Config.AdvancedConfig
  VirtualMachine.Config.CPUCount
  VirtualMachine.Config.ChangeTracking
  VirtualMachine.Config.DiskExtend
  VirtualMachine.Config.DiskLease
  VirtualMachine.Config.EditDevice
  VirtualMachine.Config.Memory
  VirtualMachine.Config.RemoveDisk
  VirtualMachine.Config.Rename
  VirtualMachine.Config.Settings
  VirtualMachine.Interact.AnswerQuestion
  VirtualMachine.Interact.PowerOff
  VirtualMachine.Interact.PowerOn
  VirtualMachine.Inventory.Create
  VirtualMachine.Inventory.Delete
  VirtualMachine.Inventory.Move
  VirtualMachine.Inventory.Register
  VirtualMachine.Inventory.Unregister
  VirtualMachine.Provisioning.DiskRandomAccess
  VirtualMachine.Provisioning.DiskRandomRead
  VirtualMachine.State.CreateSnapshot
  VirtualMachine.State.RemoveSnapshot
  VirtualMachine.State.RevertToSnapshot
)

dr=(
  Datastore.AllocateSpace
  Datastore.Browse
  Global.DisableMethods
  Global.EnableMethods
  Global.Licenses
  Global.ManageCustomFields
  VirtualMachine.Config.ChangeTracking
  VirtualMachine.Config.DiskLease
  VirtualMachine.Interact.AnswerQuestion
  VirtualMachine.Interact.PowerOff
  VirtualMachine.Interact.PowerOn
  VirtualMachine.Provisioning.DiskRandomRead
  VirtualMachine.State.CreateSnapshot
  VirtualMachine.State.RemoveSnapshot
  VirtualMachine.State.RevertToSnapshot
)

govc="${GOVC:-govc}"

# Make the role, or give an existing one exactly these privileges.
make_role() {
  local name="$1"
  shift
  if "$govc" role.ls "$name" >/dev/null 2>&1; then
    echo "updating role $name"
    "$govc" role.update "$name" "$@"
  else
    echo "creating role $name"
    "$govc" role.create "$name" "$@"
  fi
}

# Grant the role on objects whose paths are separated by colons.
grant() {
  local role="$1" propagate="$2" paths="$3" path
  local -a objects
  IFS=: read -r -a objects <<<"$paths"
  for path in "${objects[@]}"; do
    echo "granting $role to $FAILBACK_PRINCIPAL on $path"
    "$govc" permissions.set -principal "$FAILBACK_PRINCIPAL" -role "$role" \
      "-propagate=$propagate" "$path"
  done
}

: "${FAILBACK_PRINCIPAL:?the account that gets the role}"
: "${FAILBACK_VMS:?inventory paths of folders or VMs}"
: "${FAILBACK_DATASTORES:?inventory paths of their datastores}"

case "${FAILBACK_SITE:?production or dr}" in
  production) role="Failback production" ;;
  dr) role="Failback DR" ;;
  *)
    echo "FAILBACK_SITE is production or dr, not $FAILBACK_SITE" >&2
    exit 2
    ;;
esac

make_role "Failback production" "${production[@]}"
make_role "Failback DR" "${dr[@]}"

grant "$role" false /
grant "$role" true "$FAILBACK_VMS"
grant "$role" true "$FAILBACK_DATASTORES"
if [[ -n "${FAILBACK_PLACES:-}" ]]; then
  grant "$role" true "$FAILBACK_PLACES"
fi
