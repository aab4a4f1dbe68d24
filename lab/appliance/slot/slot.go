// Package slot is the appliance's two root partitions, and the choice between them.
//
// The problem it solves: an appliance that carries traffic far away has to survive the
// update of itself. So the system that runs is never written to. An update fills the
// other of two partitions, is read back, and is booted once; only when weir has come up
// there is it what boots from then on. Whatever else happens, a power cut while writing,
// a kernel that panics, a weir that does not start, ends in the system from before.
//
// The choice is two words in a file on the boot partition, which GRUB reads: slot, which
// is known to be good, and try, which is to be booted once. GRUB clears try before it
// boots it, so that a box which hangs there needs nothing but a reset, and the watchdog
// does that.
package slot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Slot names one of the partitions.
type Slot string

// The slots.
const (
	A Slot = "a"
	B Slot = "b"
)

// Other returns the slot that is not this one.
func (s Slot) Other() Slot {
	if s == A {
		return B
	}
	return A
}

// trialWord is on the kernel's command line when a slot is booted once.
const trialWord = "weir.trial"

// Running returns which slot a kernel command line has booted, and whether that is for
// this once.
func Running(commandLine string) (s Slot, trial bool, err error) {
	for _, word := range strings.Fields(commandLine) {
		if value, ok := strings.CutPrefix(word, "weir.slot="); ok {
			s = Slot(value)
		}
		trial = trial || word == trialWord
	}
	if s != A && s != B {
		return "", false, fmt.Errorf("the kernel command line has no weir.slot=a or b: this is no appliance, or it was booted by hand")
	}
	return s, trial, nil
}

// Disk is where the appliance's partitions are.
type Disk struct {
	// Labels is the folder that has them by their label in the GPT.
	Labels string

	// Mount makes the boot partition a folder; undo takes it away again.
	Mount func(device string) (folder string, undo func() error, err error)
}

// Device returns a slot's partition.
func (d *Disk) Device(s Slot) string { return filepath.Join(d.Labels, "weir-"+string(s)) }

// Choice is what GRUB boots next.
type Choice struct {
	Good Slot
	Try  Slot // "": nothing is to be tried
}

// Choice reads it. A file that is damaged or missing means slot a, as it does to GRUB,
// and is whole again with the next SetChoice.
func (d *Disk) Choice() (c Choice, err error) {
	err = d.withEnvironment(func(f *os.File) error {
		values, err := readEnvironment(f)
		if err != nil && !errors.Is(err, errDamaged) {
			return err
		}
		c = Choice{Good: Slot(values["slot"]), Try: Slot(values["try"])}
		if c.Good != B {
			c.Good = A
		}
		if c.Try != A && c.Try != B {
			c.Try = ""
		}
		return nil
	})
	return c, err
}

// SetChoice writes it, by one sector that is overwritten in place: a power cut leaves
// the old choice or the new one.
func (d *Disk) SetChoice(c Choice) error {
	return d.withEnvironment(func(f *os.File) error {
		return writeEnvironment(f, map[string]string{"slot": string(c.Good), "try": string(c.Try)})
	})
}

func (d *Disk) withEnvironment(f func(*os.File) error) (err error) {
	folder, undo, err := d.Mount(filepath.Join(d.Labels, "weir-esp"))
	if err != nil {
		return fmt.Errorf("boot choice: %w", err)
	}
	defer func() { err = errors.Join(err, undo()) }()
	file, err := os.OpenFile(filepath.Join(folder, "grub", "grubenv"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("boot choice: %w", err)
	}
	defer file.Close()
	if err := f(file); err != nil {
		return fmt.Errorf("boot choice: %w", err)
	}
	return nil
}
