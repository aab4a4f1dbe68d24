package appliance

import (
	"strings"
	"testing"
)

// Where Debian's package ovmf has UEFI with Secure Boot on, and with the keys that machines
// are sold with.
const (
	firmwareCode = "/usr/share/OVMF/OVMF_CODE_4M.ms.fd"
	firmwareVars = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
)

// A box that boots by UEFI, takes nothing unsigned, and has not been told what to do.
func TestSecureBoot(t *testing.T) {
	needImage(t)
	s := newLab(t)
	seed := s.backendSeed(t)
	seed["network-config"] = "version: 2\nethernets: {eth0: {addresses: [10.1.0.2/24]}}\n"
	m := s.machine(t, &machine{
		name: "uefi", from: s.client, address: weirAddr, memory: 1024, kind: "q35,smm=on",
		nics: []nic{{"52:54:00:00:01:03", "front"}},
	}, seed, true)
	command(t, "cp", firmwareVars, m.file("vars.fd"))
	m.args = append(m.args, "-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+firmwareCode,
		"-drive", "if=pflash,unit=1,format=raw,file="+m.file("vars.fd"))
	m.power(t)
	m.login(t)
	// Four bytes of attributes, and the value (UEFI specification, section 3.3).
	const variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	if got := strings.Fields(m.run(t, "od -An -t u1 "+variable)); len(got) != 5 || got[4] != "1" {
		t.Errorf("the variable SecureBoot is %q", got)
	}
	if status := m.run(t, "weir-appliance status"); !strings.HasPrefix(status, "slot a: ") || !strings.HasSuffix(status, " (running, boots)\nslot b: empty\n") {
		t.Errorf("slots: %s", status)
	}
	// weir waits for a configuration, and systemd does not try in vain.
	m.await(t, "booting has ended", func() error {
		_, err := m.try(nil, "systemctl is-system-running --wait")
		return err
	})
	if got := m.run(t, "systemctl show -p ActiveState -p Result -p NRestarts weir"); got != "Result=exec-condition\nNRestarts=0\nActiveState=inactive\n" {
		t.Errorf("weir's unit: %s", got)
	}
}
