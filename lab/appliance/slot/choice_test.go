package slot

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bootPartition returns a disk whose boot partition is a folder, and GRUB's file in it.
func bootPartition(t *testing.T, block string) (d *Disk, path string, mounted *int) {
	t.Helper()
	folder := t.TempDir()
	path = filepath.Join(folder, "grub", "grubenv")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(block), 0o644); err != nil {
		t.Fatal(err)
	}
	mounted = new(int)
	return &Disk{Labels: "/labels", Mount: func(device string) (string, func() error, error) {
		if device != "/labels/weir-esp" {
			t.Errorf("mounted %s", device)
		}
		*mounted++
		return folder, func() error { *mounted--; return nil }, nil
	}}, path, mounted
}

func padded(text string) string { return text + strings.Repeat("#", 1024-len(text)) }

func TestChoice(t *testing.T) {
	const header = "# GRUB Environment Block\n"
	for name, c := range map[string]struct {
		block string
		want  Choice
	}{
		"built":       {padded(header + "slot=a\ntry=\n"), Choice{Good: A}},
		"tried":       {padded(header + "slot=b\ntry=\n"), Choice{Good: B}},
		"to-be-tried": {padded(header + "slot=a\ntry=b\n"), Choice{Good: A, Try: B}},
		"reversed":    {padded(header + "try=a\nslot=b\n"), Choice{Good: B, Try: A}},
		"others":      {padded(header + "saved_entry=x\nslot=b\n"), Choice{Good: B}},
		"empty":       {padded(header), Choice{Good: A}},
		"none":        {"", Choice{Good: A}},
		"nonsense":    {padded(header + "slot=z\ntry=q\n"), Choice{Good: A}},
		"short":       {header + "slot=b\n", Choice{Good: A}},
		"damaged":     {padded("# GNU Environment Block\nslot=b\n"), Choice{Good: A}},
		"a-line":      {padded(header + "slot\n"), Choice{Good: A}},
	} {
		t.Run(name, func(t *testing.T) {
			d, path, mounted := bootPartition(t, c.block)
			if got, err := d.Choice(); got != c.want || err != nil {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
			// Whatever it was, it can be written.
			if err := d.SetChoice(Choice{Good: B}); err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(path); err != nil || string(text) != padded(header+"slot=b\ntry=\n") {
				t.Errorf("written over: %v, %q", err, text)
			}
			if *mounted != 0 {
				t.Error("the boot partition is still mounted")
			}
		})
	}
}

// The choice that is written is what GRUB's own format has, in a file that keeps its
// place and its length, and differs in its first sector only.
func TestSetChoice(t *testing.T) {
	d, path, mounted := bootPartition(t, padded("# GRUB Environment Block\nslot=a\ntry=\n"))
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for want, choice := range map[string]Choice{
		"slot=a\ntry=b\n": {Good: A, Try: B},
		"slot=b\ntry=\n":  {Good: B},
	} {
		if err := d.SetChoice(choice); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil || string(text) != padded("# GRUB Environment Block\n"+want) {
			t.Errorf("%v: %q", err, text)
		}
		if !bytes.Equal(text[512:], bytes.Repeat([]byte("#"), 512)) {
			t.Error("the second sector has changed")
		}
		if got, err := d.Choice(); got != choice || err != nil {
			t.Errorf("read %+v, %v; want %+v", got, err, choice)
		}
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("it is another file now, %v", err)
	}
	if *mounted != 0 {
		t.Error("the boot partition is still mounted")
	}
}
