package appliance

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// status returns what weir-appliance says of the slots.
func (a *appliance) status(t *testing.T) string {
	t.Helper()
	return a.run(t, "weir-appliance status")
}

// reboot waits for the box to come back, having booted n times since.
func (a *appliance) reboot(t *testing.T, n int) {
	t.Helper()
	mark := len(a.console())
	begin := time.Now()
	_, _ = a.try(nil, "systemctl reboot") // the connection may break first
	a.await(t, fmt.Sprintf("%d boots", n), func() error {
		shown := a.console()
		if got := strings.Count(shown[min(mark, len(shown)):], "lb1 login:"); got < n {
			return fmt.Errorf("%d login prompts", got)
		}
		return nil
	})
	a.login(t)
	t.Logf("%d boots took %.0f s", n, time.Since(begin).Seconds())
}

// updates writes another version to slot b, by HTTP, and keeps it.
func (a *appliance) updates(t *testing.T) {
	damaged := a.lab.sealed(t, "damaged")
	spoil(t, a.lab.updates+"/damaged.update")
	if out, err := a.try(nil, "weir-appliance update "+damaged); err == nil || !strings.Contains(out, "damaged on its way") {
		t.Errorf("a damaged update: %v: %s", err, out)
	}
	if err := os.Remove(a.lab.updates + "/damaged.update"); err != nil {
		t.Fatal(err)
	}
	if text := a.status(t); !strings.Contains(text, "slot b: empty\n") {
		t.Errorf("after a damaged update: %s", text)
	}
	t.Log(a.run(t, "weir-appliance update "+a.lab.sealed(t, "99.0.2")))
	if text := a.status(t); !strings.Contains(text, "slot b: 99.0.2 (is tried at the next boot)") {
		t.Errorf("after the update: %s", text)
	}
	a.reboot(t, 1)
	a.ready(t)
	a.await(t, "the update is kept", func() error {
		if text := a.status(t); !strings.Contains(text, "slot b: 99.0.2 (running, boots)") {
			return errors.New(text)
		}
		return nil
	})
	a.serves(t, a.near, "web")
	a.serves(t, a.far, "backend")
}

// spoil changes one byte in the middle.
func spoil(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, info.Size()/2); err != nil {
		t.Fatal(err)
	}
}

// fallsBackFromPanic tries an update whose kernel boots and finds nothing to start.
func (a *appliance) fallsBackFromPanic(t *testing.T) {
	a.run(t, "weir-appliance update "+a.lab.headless(t, "99.0.3"))
	mark := len(a.console())
	a.reboot(t, 1)
	if shown := a.console()[mark:]; !strings.Contains(shown, "No init found") {
		t.Errorf("the update was not tried:\n%s", tail(shown, 3000))
	}
	a.ready(t)
	text := a.status(t)
	for _, want := range []string{"slot a: 99.0.3\n", "slot b: 99.0.2 (running, boots)\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("after the trial:\n%s, want %s", text, want)
		}
	}
	a.serves(t, a.near, "web")
}

// fallsBackFromWeir tries an update in which weir does not start, since its
// configuration is not for it.
func (a *appliance) fallsBackFromWeir(t *testing.T) {
	a.run(t, "weir-appliance update --trial 20s "+a.lab.sealed(t, "99.0.4"))
	a.write(t, "/etc/weir/weir.yaml", "interfaces: [{name: eth0}]\nservices: nothing that this weir knows\n")
	mark := len(a.console())
	_, _ = a.try(nil, "systemctl reboot")
	a.shows(t, mark, "trial: slot a is not up after 20s")
	mark = len(a.console())
	a.shows(t, mark, "lb1 login:")
	a.login(t)
	text := a.status(t)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if want := []string{"slot a: 99.0.4", "slot b: 99.0.2 (running, boots)"}; !slices.Equal(lines, want) {
		t.Errorf("after the trial:\n%s\nwant %q", text, want)
	}
	a.write(t, "/etc/weir/weir.yaml", weirConfig(largePool, true))
	a.run(t, "systemctl restart weir")
	a.ready(t)
	a.serves(t, a.near, "web")
	a.serves(t, a.far, "backend")
}
