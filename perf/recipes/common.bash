# Sourced by the recipes beside it.
# shellcheck shell=bash

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# Prints the head of the recipe, which is its usage.
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"; }

# Says how a recipe is used, and leaves, when asked or when there are fewer than $1 arguments.
needs() {
    local least=$1
    shift
    case "${1-}" in -h | --help) usage; exit 0 ;; esac
    [ "$#" -ge "$least" ] || { usage >&2; exit 2; }
}

# Whether a device is a PCI address; else it is a virtual device of DPDK, with its arguments.
is_pci() { [[ $1 =~ ^([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7](,|$) ]]; }

# The EAL's arguments for these devices, one a line.
eal_devices() {
    local device pci=no
    for device in "$@"; do
        if is_pci "$device"; then
            pci=yes
            printf '%s\n' --allow "$device"
        else
            printf '%s\n' --vdev "$device"
        fi
    done
    # Cards that are not named are left alone.
    [ "$pci" = yes ] || printf '%s\n' --no-pci
}

needs_program() { command -v "$1" >/dev/null || die "$1 is not installed: $2"; }
