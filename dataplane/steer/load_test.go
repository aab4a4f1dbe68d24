package steer

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func TestLoadErrorsNameTheFix(t *testing.T) {
	limit := errors.New("no right to raise the limit")
	for _, test := range []struct {
		err, limitErr error
		want          string
	}{
		{unix.EPERM, nil, "CAP_BPF"},
		{unix.EPERM, limit, "ulimit -l: no right to raise the limit"},
		{unix.EACCES, limit, "CAP_BPF"},
		{ebpf.ErrNotSupported, nil, "Linux 5.9"},
		{unix.EINVAL, nil, "Linux 5.9"},
	} {
		err := explain(fmt.Errorf("create map: %w", test.err), test.limitErr)
		if !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, %v: got %q, want %q in it", test.err, test.limitErr, err, test.want)
		}
	}
}
