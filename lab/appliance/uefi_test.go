package appliance

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// Where Debian's package ovmf has UEFI with Secure Boot on, and with the keys that machines
// are sold with.
const (
	firmwareCode = "/usr/share/OVMF/OVMF_CODE_4M.ms.fd"
	firmwareVars = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
)

// A box that boots by UEFI, takes nothing unsigned, and has its seed from the kernel's
// command line.
func TestSecureBoot(t *testing.T) {
	needImage(t)
	s := newLab(t)
	a := &appliance{lab: s, interfaces: 1, machine: s.machine(t, &machine{
		name: "uefi", from: s.client, address: weirAddr, memory: 1024, kind: "q35,smm=on", watchdog: "i6300esb",
		nics: []nic{{"52:54:00:00:01:03", "front"}},
	}, s.seeded(t, map[string]string{
		"user-data":      "#cloud-config\nhostname: uefi\nssh_authorized_keys: [" + s.publicKey(t) + "]\n",
		"network-config": "version: 2\nethernets: {eth0: {addresses: [10.1.0.2/24]}}\n",
		"weir.yaml": "interfaces: [{name: eth0}]\nflows: {entries: 65536}\n" +
			"services: [{name: near, addresses: [10.1.0.128], ports: [tcp/80], mode: dsr, backends: [{address: 10.1.0.21}]}]\n",
	}))}
	command(t, "cp", firmwareVars, a.file("vars.fd"))
	a.args = append(a.args, "-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+firmwareCode,
		"-drive", "if=pflash,unit=1,format=raw,file="+a.file("vars.fd"))
	a.power(t)
	a.login(t)
	// Four bytes of attributes, and the value (UEFI specification, section 3.3).
	const variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	if got := strings.Fields(a.run(t, "od -An -t u1 "+variable)); len(got) != 5 || got[4] != "1" {
		t.Errorf("the variable SecureBoot is %q", got)
	}
	// Lockdown, which comes with Secure Boot, restricts what BPF may do.
	a.has(t, map[string]string{"/sys/kernel/security/lockdown": "none [integrity] confidentiality"})
	a.ready(t)
	vip := netip.MustParseAddrPort("10.1.0.128:80")
	s.serveVIP(t, vip.Addr())
	a.serves(t, vip, "web")

	// GRUB writes to its environment by the firmware here.
	a.run(t, "weir-appliance update "+s.sealed(t, "99.0.2").args())
	a.reboot(t, 1)
	a.await(t, "the update is kept", func() error {
		if text := a.status(t); !strings.Contains(text, "slot b: 99.0.2 (running, boots)") {
			return errors.New(text)
		}
		return nil
	})
	a.serves(t, vip, "web")
}
