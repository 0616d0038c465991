import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.PrivateKey;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.MGF1ParameterSpec;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;
import java.util.zip.ZipOutputStream;
import javax.crypto.spec.OAEPParameterSpec;
import javax.crypto.spec.PSource;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.x509.AlgorithmIdentifier;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaCertStore;
import org.bouncycastle.cms.CMSAlgorithm;
import org.bouncycastle.cms.CMSEnvelopedData;
import org.bouncycastle.cms.CMSEnvelopedDataGenerator;
import org.bouncycastle.cms.CMSEnvelopedDataParser;
import org.bouncycastle.cms.CMSEnvelopedDataStreamGenerator;
import org.bouncycastle.cms.CMSProcessableByteArray;
import org.bouncycastle.cms.CMSSignedData;
import org.bouncycastle.cms.CMSSignedDataGenerator;
import org.bouncycastle.cms.RecipientInformation;
import org.bouncycastle.cms.SignerInformation;
import org.bouncycastle.cms.jcajce.JcaSignerInfoGeneratorBuilder;
import org.bouncycastle.cms.jcajce.JcaSimpleSignerInfoVerifierBuilder;
import org.bouncycastle.cms.jcajce.JceCMSContentEncryptorBuilder;
import org.bouncycastle.cms.jcajce.JceKeyTransEnvelopedRecipient;
import org.bouncycastle.cms.jcajce.JceKeyTransRecipientInfoGenerator;
import org.bouncycastle.operator.OutputEncryptor;
import org.bouncycastle.operator.jcajce.JcaAlgorithmParametersConverter;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.operator.jcajce.JcaDigestCalculatorProviderBuilder;

/** Does with BouncyCastle what KS' Java libraries do with it: seals, opens, and packs ASiC-E signed with SHA1withRSA. */
public final class Witness {
    private static final String ASIC = "application/vnd.etsi.asic-e+zip";
    private static final OAEPParameterSpec OAEP =
            new OAEPParameterSpec("SHA-256", "MGF1", MGF1ParameterSpec.SHA256, PSource.PSpecified.DEFAULT);

    public static void main(String[] arguments) throws Exception {
        Path here = Path.of(arguments[1]);
        X509Certificate certificate = certificate(here.resolve("recipient.pem"));
        PrivateKey key = key(here.resolve("recipient-key.pem"));
        if (arguments[0].equals("generate")) {
            byte[] plain = Files.readAllBytes(here.resolve("plain.txt"));
            Files.write(here.resolve("bouncycastle-array.p7m"), array(plain, certificate));
            Files.write(here.resolve("bouncycastle-stream.p7m"), stream(plain, certificate));
            Files.write(here.resolve("bouncycastle-package-sha1.p7m"), stream(pack(plain, certificate, key), certificate));
        } else {
            for (String name : Arrays.asList(arguments).subList(2, arguments.length)) {
                open(here.resolve(name), here.resolve("plain.txt"), certificate, key);
                System.out.println(name + " ok");
            }
        }
    }

    private static JceKeyTransRecipientInfoGenerator recipient(X509Certificate certificate) throws Exception {
        AlgorithmIdentifier oaep =
                new JcaAlgorithmParametersConverter().getAlgorithmIdentifier(PKCSObjectIdentifiers.id_RSAES_OAEP, OAEP);
        return new JceKeyTransRecipientInfoGenerator(certificate, oaep);
    }

    private static OutputEncryptor cipher() throws Exception {
        return new JceCMSContentEncryptorBuilder(CMSAlgorithm.AES256_CBC).build();
    }

    private static byte[] array(byte[] plain, X509Certificate certificate) throws Exception {
        CMSEnvelopedDataGenerator generator = new CMSEnvelopedDataGenerator();
        generator.addRecipientInfoGenerator(recipient(certificate));
        return generator.generate(new CMSProcessableByteArray(plain), cipher()).getEncoded();
    }

    private static byte[] stream(byte[] plain, X509Certificate certificate) throws Exception {
        CMSEnvelopedDataStreamGenerator generator = new CMSEnvelopedDataStreamGenerator();
        generator.addRecipientInfoGenerator(recipient(certificate));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try (OutputStream sealed = generator.open(out, cipher())) {
            sealed.write(plain);
        }
        return out.toByteArray();
    }

    private static byte[] pack(byte[] plain, X509Certificate certificate, PrivateKey key) throws Exception {
        String digest = Base64.getEncoder().encodeToString(MessageDigest.getInstance("SHA-256").digest(plain));
        String signature = "META-INF/signature-0f3b2c8e-0c0f-4f06-9f0c-0d5a5b6a7c11.p7s";
        byte[] manifest = ("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n"
                + "<ASiCManifest xmlns=\"http://uri.etsi.org/02918/v1.2.1#\" xmlns:ns2=\"http://www.w3.org/2000/09/xmldsig#\">"
                + "<SigReference URI=\"" + signature + "\" MimeType=\"application/x-pkcs7-signature\"/>"
                + "<DataObjectReference URI=\"plain.txt\" MimeType=\"text/plain\" Rootfile=\"true\">"
                + "<ns2:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha256\"/>"
                + "<ns2:DigestValue>" + digest + "</ns2:DigestValue></DataObjectReference></ASiCManifest>")
                .getBytes(StandardCharsets.UTF_8);
        CMSSignedDataGenerator generator = new CMSSignedDataGenerator();
        generator.addSignerInfoGenerator(
                new JcaSignerInfoGeneratorBuilder(new JcaDigestCalculatorProviderBuilder().build())
                        .build(new JcaContentSignerBuilder("SHA1withRSA").build(key), certificate));
        generator.addCertificates(new JcaCertStore(List.of(certificate)));
        byte[] signed = generator.generate(new CMSProcessableByteArray(manifest), false).getEncoded();
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try (ZipOutputStream zip = new ZipOutputStream(out)) {
            zip.setComment("mimetype=" + ASIC);
            ZipEntry first = new ZipEntry("mimetype");
            first.setComment("mimetype=" + ASIC);
            first.setMethod(ZipEntry.STORED);
            first.setSize(ASIC.length());
            java.util.zip.CRC32 crc = new java.util.zip.CRC32();
            crc.update(ASIC.getBytes(StandardCharsets.UTF_8));
            first.setCrc(crc.getValue());
            zip.putNextEntry(first);
            zip.write(ASIC.getBytes(StandardCharsets.UTF_8));
            put(zip, "plain.txt", plain);
            put(zip, "META-INF/ASiCManifest.xml", manifest);
            put(zip, signature, signed);
            put(zip, "META-INF/manifest.xml", "<manifest:manifest xmlns:manifest=\"urn:x\"/>".getBytes(StandardCharsets.UTF_8));
        }
        return out.toByteArray();
    }

    private static void put(ZipOutputStream zip, String name, byte[] content) throws Exception {
        zip.putNextEntry(new ZipEntry(name));
        zip.write(content);
        zip.closeEntry();
    }

    private static void open(Path sealed, Path expected, X509Certificate certificate, PrivateKey key) throws Exception {
        byte[] content = Files.readAllBytes(sealed);
        RecipientInformation array = new CMSEnvelopedData(content).getRecipientInfos().getRecipients().iterator().next();
        byte[] opened = array.getContent(new JceKeyTransEnvelopedRecipient(key));
        RecipientInformation stream =
                new CMSEnvelopedDataParser(content).getRecipientInfos().getRecipients().iterator().next();
        byte[] streamed =
                stream.getContentStream(new JceKeyTransEnvelopedRecipient(key)).getContentStream().readAllBytes();
        check(Arrays.equals(opened, streamed), "array and stream differ");
        if (!sealed.getFileName().toString().contains("package")) {
            check(Arrays.equals(opened, Files.readAllBytes(expected)), "another plaintext");
            return;
        }
        Map<String, byte[]> files = new HashMap<>();
        try (ZipInputStream zip = new ZipInputStream(new ByteArrayInputStream(opened))) {
            for (ZipEntry entry = zip.getNextEntry(); entry != null; entry = zip.getNextEntry()) {
                files.put(entry.getName(), zip.readAllBytes());
            }
        }
        byte[] manifest = files.get("META-INF/ASiCManifest.xml");
        String name = files.keySet().stream().filter(each -> each.endsWith(".p7s")).findFirst().orElseThrow();
        CMSSignedData signed = new CMSSignedData(new CMSProcessableByteArray(manifest), files.get(name));
        SignerInformation signer = signed.getSignerInfos().getSigners().iterator().next();
        X509CertificateHolder holder =
                (X509CertificateHolder) signed.getCertificates().getMatches(signer.getSID()).iterator().next();
        check(signer.verify(new JcaSimpleSignerInfoVerifierBuilder().build(holder)), "signature");
        check(holder.equals(new X509CertificateHolder(certificate.getEncoded())), "another signer");
        byte[] plain = files.get("plain.txt");
        check(Arrays.equals(plain, Files.readAllBytes(expected)), "another plaintext");
        String digest = Base64.getEncoder().encodeToString(MessageDigest.getInstance("SHA-256").digest(plain));
        check(new String(manifest, StandardCharsets.UTF_8).contains(digest), "digest");
    }

    private static void check(boolean good, String what) {
        if (!good) {
            throw new IllegalStateException(what);
        }
    }

    private static X509Certificate certificate(Path path) throws Exception {
        return (X509Certificate)
                CertificateFactory.getInstance("X.509").generateCertificate(Files.newInputStream(path));
    }

    private static PrivateKey key(Path path) throws Exception {
        String pem = Files.readString(path).replaceAll("-----[A-Z ]+-----|\\s", "");
        return KeyFactory.getInstance("RSA").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem)));
    }
}
