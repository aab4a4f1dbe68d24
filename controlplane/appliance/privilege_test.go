package appliance

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMissingCapabilities(t *testing.T) {
	bit := func(numbers ...int) (set uint64) {
		for _, n := range numbers {
			set |= 1 << n
		}
		return set
	}
	for _, test := range []struct {
		name      string
		effective uint64
		missing   []string
	}{
		{"root", ^uint64(0), nil},
		{"nobody", 0, []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"}},
		{"just enough", bit(unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_BPF, unix.CAP_PERFMON), nil},
		{"before Linux 5.8", bit(unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN), nil},
		{"no BPF", bit(unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_PERFMON), []string{"CAP_BPF"}},
	} {
		if got := missingFrom(test.effective); !slices.Equal(got, test.missing) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.missing)
		}
	}
}
