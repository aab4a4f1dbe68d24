package appliance

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// needed are the capabilities without which weir cannot start (capabilities(7)).
// CAP_SYS_ADMIN stands for those that were split from it in Linux 5.8.
func needed() []capability {
	return []capability{
		{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", false},
		{unix.CAP_NET_RAW, "CAP_NET_RAW", false},
		{unix.CAP_BPF, "CAP_BPF", true},
		{unix.CAP_PERFMON, "CAP_PERFMON", true},
	}
}

type capability struct {
	number     int
	name       string
	bySysAdmin bool // CAP_SYS_ADMIN includes it
}

// checkPrivilege says which capabilities are missing. Asking first gives one
// clear error instead of the first refusal that some system call comes to.
func checkPrivilege() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	effective := uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
	if missing := missingFrom(effective); len(missing) > 0 {
		return fmt.Errorf("no permission: %s missing; run weir as root, or give it what docs/operating.md lists",
			strings.Join(missing, ", "))
	}
	return nil
}

func missingFrom(effective uint64) []string {
	has := func(number int) bool { return effective>>number&1 != 0 }
	var missing []string
	for _, c := range needed() {
		if !has(c.number) && !(c.bySysAdmin && has(unix.CAP_SYS_ADMIN)) {
			missing = append(missing, c.name)
		}
	}
	return missing
}
