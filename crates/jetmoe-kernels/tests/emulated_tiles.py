"""Patches Bochs 3.0, in the folder that is given, so that Linux lets a process use AMX tiles and so that they compute.

* Linux gives tiles only where it can turn them off (extended feature disable, XFD).
* Tiles were lost at a switch of threads: their configuration was not written as it is read, half of their rows not at
  all, and tiles in use counted as unused.
* tdpbsud multiplies bytes with a sign by bytes without, says Intel's manual; here both were taken without.
"""
import sys
from pathlib import Path

cpu = Path(sys.argv[1]) / "cpu"


def replace(name, old, new):
    text = (cpu / name).read_text()
    assert text.count(old) == 1, (name, old, text.count(old))
    (cpu / name).write_text(text.replace(old, new))


replace("cpuid.cc", "leaf->eax |= (1<<3);\n\n    // EBX[31:00] - The size (in bytes) of the XSAVE area containing",
        "leaf->eax |= (1<<3);\n    if (is_cpu_extension_supported(BX_ISA_AMX)) leaf->eax |= (1<<4);\n\n"
        "    // EBX[31:00] - The size (in bytes) of the XSAVE area containing")
replace("cpuid.cc", "leaf->ecx = (cpu->ia32_xss_suppmask & (1 << subfunction)) != 0;\n",
        "leaf->ecx = (cpu->ia32_xss_suppmask & (1 << subfunction)) != 0;\n"
        "      if (subfunction == 18) leaf->ecx |= (1<<2);\n")

replace("msr.cc", "    case BX_MSR_XSS:\n      if (! is_cpu",
        "    case BX_MSR_IA32_XFD:\n      val64 = bx_xfd;\n      break;\n"
        "    case BX_MSR_IA32_XFD_ERROR:\n      val64 = bx_xfd_error;\n      break;\n\n"
        "    case BX_MSR_XSS:\n      if (! is_cpu")
replace("msr.cc", "    case BX_MSR_XSS:\n      {\n",
        "    case BX_MSR_IA32_XFD:\n      bx_xfd = val_64;\n      handleAvxModeChange();\n      break;\n"
        "    case BX_MSR_IA32_XFD_ERROR:\n      bx_xfd_error = val_64;\n      break;\n\n"
        "    case BX_MSR_XSS:\n      {\n")
replace("msr.cc", '  msr_desc[BX_MSR_XSS] = ', '  msr_desc[BX_MSR_IA32_XFD] = new MSR_Descriptor("MSR_IA32_XFD", BX_ISA_AMX);\n'
        '  msr_desc[BX_MSR_IA32_XFD_ERROR] = new MSR_Descriptor("MSR_IA32_XFD_ERROR", BX_ISA_AMX);\n'
        '  msr_desc[BX_MSR_XSS] = ')
replace("msr.cc", '#include "msr.h"\n', '#include "msr.h"\n\n// one processor is emulated\nBit64u bx_xfd = 0, bx_xfd_error = 0;\n')
state = "extern Bit64u bx_xfd, bx_xfd_error;\n\n"
replace("proc_ctrl.cc", "void BX_CPU_C::handleAvxModeChange(void)", state + "void BX_CPU_C::handleAvxModeChange(void)")
replace("proc_ctrl.cc", "  if (! long64_mode() || ! BX_CPU_THIS_PTR cr4.get_OSXSAVE() ||\n      (~BX_CPU_THIS_PTR xcr0.val32 & (BX_XCR0_XTILECFG",
        "  if ((bx_xfd & BX_XCR0_XTILEDATA_MASK) || ! long64_mode() || ! BX_CPU_THIS_PTR cr4.get_OSXSAVE() ||\n"
        "      (~BX_CPU_THIS_PTR xcr0.val32 & (BX_XCR0_XTILECFG")
replace("proc_ctrl.cc", "BX_XCR0_XTILEDATA_MASK))\n    exception(BX_UD_EXCEPTION, 0);\n",
        "BX_XCR0_XTILEDATA_MASK))\n    exception(BX_UD_EXCEPTION, 0);\n\n"
        "  if (bx_xfd & BX_XCR0_XTILEDATA_MASK) {\n    bx_xfd_error = BX_XCR0_XTILEDATA_MASK;\n"
        "    exception(BX_NM_EXCEPTION, 0);\n  }\n")
replace("xsave.cc", "Bit32u BX_CPU_C::get_xinuse_vector(Bit32u requested_feature_bitmap)\n{\n",
        "extern Bit64u bx_xfd;\n\nBit32u BX_CPU_C::get_xinuse_vector(Bit32u requested_feature_bitmap)\n{\n"
        "  requested_feature_bitmap &= ~(Bit32u) bx_xfd;\n")
replace("xsave.cc", "tilecfg.vmm16u(8+n)    = BX_CPU_THIS_PTR amx->tilecfg[n].rows;",
        "tilecfg.vmmubyte(48+n) = BX_CPU_THIS_PTR amx->tilecfg[n].rows;")
replace("xsave.cc", "tilecfg.vmmubyte(48+n) = BX_CPU_THIS_PTR amx->tilecfg[n].bytes_per_row;",
        "tilecfg.vmm16u(8+n)    = BX_CPU_THIS_PTR amx->tilecfg[n].bytes_per_row;")
for access in ["write", "read"]:
    line = f"      {access}_virtual_zmmword(i->seg(), (offset+(tile*BX_TILE_MAX_ROWS+row)*64)"
    replace("xsave.cc", "    for (unsigned row=0; row < BX_TILE_REGISTERS; row++) {\n" + line,
            "    for (unsigned row=0; row < BX_TILE_MAX_ROWS; row++) {\n" + line)
replace("xsave.cc", "return (BX_CPU_THIS_PTR amx->tile_use_tracker == 0);", "return (BX_CPU_THIS_PTR amx->tile_use_tracker != 0);")
# signed by unsigned, says the manual; both were taken without signs
replace("avx/amx.cc", "DPBDSU(Bit32u x, Bit32u y)\n{\n  const Bit8u xbyte[4] = { Bit8u(x & 0xff), Bit8u((x >> 8) & 0xff), Bit8u((x >> 16) & 0xff), Bit8u(x >> 24) };",
        "DPBDSU(Bit32u x, Bit32u y)\n{\n  const Bit8s xbyte[4] = { Bit8s(x & 0xff), Bit8s((x >> 8) & 0xff), Bit8s((x >> 16) & 0xff), Bit8s(x >> 24) };")
