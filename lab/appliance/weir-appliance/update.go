package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/appliance/slot"
)

// disk is that which the box has booted from.
func disk() *slot.Disk {
	return &slot.Disk{
		Labels: "/dev/disk/by-partlabel",
		Mount: func(device string) (string, func() error, error) {
			return mount(device, unix.MS_SYNCHRONOUS, "vfat")
		},
	}
}

func running() (slot.Slot, bool, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", false, err
	}
	return slot.Running(string(line))
}

func status(w io.Writer) error {
	now, onTrial, err := running()
	if err != nil {
		return err
	}
	d := disk()
	choice, err := d.Choice()
	if err != nil {
		return err
	}
	for _, s := range []slot.Slot{slot.A, slot.B} {
		text := "empty"
		if seal, err := slot.Read(d.Device(s)); err == nil {
			text = seal.Version
		}
		var notes []string
		if s == now && onTrial && choice.Good != s {
			notes = append(notes, "running, on trial")
		} else if s == now {
			notes = append(notes, "running")
		}
		if s == choice.Good {
			notes = append(notes, "boots")
		}
		if s == choice.Try {
			notes = append(notes, "is tried at the next boot")
		}
		fmt.Fprintf(w, "slot %s: %s%s\n", s, text, parentheses(notes))
	}
	return nil
}

func parentheses(notes []string) string {
	if len(notes) == 0 {
		return ""
	}
	return " (" + strings.Join(notes, ", ") + ")"
}

// terms are what an update was told about its trial. They lie on the state partition,
// where the updated system finds them.
type terms struct {
	Trial time.Duration `json:"trial"` // nanoseconds
}

func termsFile() string { return filepath.Join(stateDir, "trial.json") }

func update(ctx context.Context, w io.Writer, source, sum string, trial time.Duration) error {
	if sum == "" && strings.HasPrefix(source, "http://") {
		return errors.New("whoever is on the way can change what comes by http://: say --sha256, or take https://")
	}
	now, onTrial, err := running()
	if err != nil {
		return err
	}
	d := disk()
	choice, err := d.Choice()
	if err != nil {
		return err
	}
	if onTrial && choice.Good != now {
		return fmt.Errorf("slot %s is on trial itself, and %s is what it would fall back to: wait, or weir-appliance commit", now, choice.Good)
	}
	r, err := open(ctx, source)
	if err != nil {
		return fmt.Errorf("open update: %w", err)
	}
	defer r.Close()
	// Should the writing be cut off, nobody is to boot what is there.
	if err := d.SetChoice(slot.Choice{Good: now}); err != nil {
		return err
	}
	other := now.Other()
	fmt.Fprintf(w, "writing to slot %s\n", other)
	seal, err := slot.Write(d.Device(other), r, sum)
	if err != nil {
		return err
	}
	text, err := json.Marshal(terms{Trial: trial})
	if err != nil {
		return err
	}
	if err := os.WriteFile(termsFile(), text, 0o600); err != nil {
		return fmt.Errorf("keep terms of trial: %w", err)
	}
	unix.Sync()
	if err := d.SetChoice(slot.Choice{Good: now, Try: other}); err != nil {
		return err
	}
	fmt.Fprintf(w, "slot %s has %s, which is tried at the next boot: systemctl reboot\n", other, seal.Version)
	return nil
}

// open returns what an update is read from.
func open(ctx context.Context, source string) (io.ReadCloser, error) {
	switch {
	case source == "-":
		return io.NopCloser(os.Stdin), nil
	case strings.HasPrefix(source, "http://"), strings.HasPrefix(source, "https://"):
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
		if err != nil {
			return nil, err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return nil, err
		}
		if answer.StatusCode != http.StatusOK {
			answer.Body.Close()
			return nil, fmt.Errorf("%s: %s", source, answer.Status)
		}
		return answer.Body, nil
	}
	return os.Open(source)
}

func commit(w io.Writer) error {
	now, _, err := running()
	if err != nil {
		return err
	}
	if err := disk().SetChoice(slot.Choice{Good: now}); err != nil {
		return err
	}
	fmt.Fprintf(w, "slot %s boots from now on\n", now)
	return nil
}

func back(w io.Writer) error {
	now, _, err := running()
	if err != nil {
		return err
	}
	d := disk()
	seal, err := slot.Read(d.Device(now.Other()))
	if err != nil {
		return fmt.Errorf("slot %s: %w", now.Other(), err)
	}
	choice, err := d.Choice()
	if err != nil {
		return err
	}
	choice.Try = now.Other()
	if err := d.SetChoice(choice); err != nil {
		return err
	}
	fmt.Fprintf(w, "slot %s, %s, is tried at the next boot: systemctl reboot\n", choice.Try, seal.Version)
	return nil
}

func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

var errNotOnTrial = errors.New("nothing is on trial")
