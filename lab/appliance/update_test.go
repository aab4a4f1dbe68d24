package appliance

import (
	"errors"
	"fmt"
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
	mark, prompt := len(a.console()), a.name+" login:"
	begin := time.Now()
	_, _ = a.try(nil, "systemctl reboot") // the connection may break first
	a.await(t, fmt.Sprintf("%d boots", n), func() error {
		shown := a.console()
		if got := strings.Count(shown[min(mark, len(shown)):], prompt); got < n {
			return fmt.Errorf("%d login prompts", got)
		}
		return nil
	})
	a.login(t)
	t.Logf("%d boots took %.0f s", n, time.Since(begin).Seconds())
}

// updates writes another version to slot b, by HTTP, and keeps it.
func (a *appliance) updates(t *testing.T) {
	update := a.lab.sealed(t, "99.0.2")
	if out, err := a.try(nil, "weir-appliance update "+update.url); err == nil || !strings.Contains(out, "--sha256") {
		t.Errorf("update by http:// without a checksum: %v %s", err, out)
	}
	t.Log(a.run(t, "weir-appliance update "+update.args()))
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

// fallsBackFromPanic tries an update whose kernel boots and finds nothing to start.
func (a *appliance) fallsBackFromPanic(t *testing.T) {
	a.run(t, "weir-appliance update "+a.lab.headless(t, "99.0.3").args())
	mark := len(a.console())
	a.reboot(t, 1)
	if shown := a.console()[mark:]; !strings.Contains(shown, "Rebooting automatically due to panic") {
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
	a.run(t, "weir-appliance update --trial 20s "+a.lab.sealed(t, "99.0.4").args())
	a.write(t, "/etc/weir/weir.yaml", "interfaces: [{name: eth0}]\nservices: nothing that this weir knows\n")
	mark := len(a.console())
	_, _ = a.try(nil, "systemctl reboot")
	a.shows(t, mark, "trial: slot a is not up after 20s")
	a.await(t, "the box is back in slot b", func() error {
		text, err := a.try(nil, "weir-appliance status")
		lines := strings.Split(strings.TrimSpace(text), "\n")
		if want := []string{"slot a: 99.0.4", "slot b: 99.0.2 (running, boots)"}; err != nil || !slices.Equal(lines, want) {
			return fmt.Errorf("status: %v: %q", err, lines)
		}
		return nil
	})
	a.write(t, "/etc/weir/weir.yaml", weirConfig(largePool, true))
	a.run(t, "systemctl restart weir")
	a.ready(t)
	a.serves(t, a.near, "web")
	a.serves(t, a.far, "backend")
}
